package unit

import (
	"encoding"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	f := func(s string, want Size, text string) {
		t.Helper()
		z, err := ParseSize(s)
		if err != nil || z != want || z.String() != text {
			t.Errorf("%q: %d (%s), %v; want %d (%s)", s, z, z, err, want, text)
		}
	}
	f("0", 0, "0")
	f("0MiB", 0, "0")
	f("512B", 512, "512B")
	f("64KiB", 64<<10, "64KiB")
	f("1024KiB", 1<<20, "1MiB")
	f("64MiB", 64<<20, "64MiB")
	f("2GiB", 2<<30, "2GiB")
	f("10KB", 10_000, "10KB")
	f("3MB", 3_000_000, "3MB")
	f("1GB", 1_000_000_000, "1GB")
	f("1500B", 1500, "1500B")
	refused(t, func(s string) error { _, err := ParseSize(s); return err },
		"", "1", "MiB", "-1B", "+1B", "1.5GiB", "1 MiB", "1mib", "1M", "99999999999999999999B", "9223372036854775807KiB", "１B")
}

func TestPercent(t *testing.T) {
	f := func(s string, want Percent, text string) {
		t.Helper()
		p, err := ParsePercent(s)
		if err != nil || p != want || p.String() != text {
			t.Errorf("%q: %v, %v; want %v", s, p, err, want)
		}
	}
	f("0%", 0, "0%")
	f("20%", 20, "20%")
	f("0.5%", 0.5, "0.5%")
	f("012.50%", 12.5, "12.5%")
	f("100%", 100, "100%")
	if p := Percent(20); p.Fraction() != 0.2 {
		t.Errorf("fraction of 20%% is %v", p.Fraction())
	}
	refused(t, func(s string) error { _, err := ParsePercent(s); return err },
		"", "%", "20", "101%", "100.1%", "-1%", "1e1%", "Inf%", "NaN%", ".5%", "5.%", "1.2.3%", "5 %", "5%%", "0x1p4%")
}

func TestRate(t *testing.T) {
	f := func(s string, want Rate, interval time.Duration) {
		t.Helper()
		r, err := ParseRate(s)
		if err != nil || r != want || r.String() != s || r.Interval() != interval {
			t.Errorf("%q: %+v, %v, interval %s; want %+v, %s", s, r, err, r.Interval(), want, interval)
		}
	}
	f("100/s", Rate{100, time.Second}, 10*time.Millisecond)
	f("1/m", Rate{1, time.Minute}, time.Minute)
	f("10/h", Rate{10, time.Hour}, 6*time.Minute)
	f("24/d", Rate{24, 24 * time.Hour}, time.Hour)
	f("1000000000/s", Rate{1e9, time.Second}, 1)
	refused(t, func(s string) error { _, err := ParseRate(s); return err },
		"", "100", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "1/w", "1/2s", "1 /s", "1/s/s", "1000000001/s", "99999999999999999999/s")
	if (Rate{}).String() != "" || (Rate{}).Interval() != 0 {
		t.Error("the zero rate has a text or an interval")
	}
}

func TestPrefix(t *testing.T) {
	f := func(s, text string, inside, outside string) {
		t.Helper()
		p, err := ParsePrefix(s)
		if err != nil || p.String() != text {
			t.Errorf("%q: %s, %v; want %s", s, p, err, text)
			return
		}
		if !p.Contains(netip.MustParseAddr(inside)) || p.Contains(netip.MustParseAddr(outside)) {
			t.Errorf("%s contains %s or lacks %s", p, outside, inside)
		}
	}
	f("10.0.0.0/8", "10.0.0.0/8", "10.255.0.1", "11.0.0.0")
	f("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2")
	f("127.0.0.1/32", "127.0.0.1", "127.0.0.1", "127.0.0.2")
	f("::1", "::1", "::1", "::2")
	f("2001:db8::/32", "2001:db8::/32", "2001:db8::1", "2001:db9::1")
	f("0.0.0.0/0", "0.0.0.0/0", "192.0.2.1", "::1")
	f("::/0", "::/0", "2001:db8::1", "192.0.2.1")
	f("::ffff:10.0.0.0/104", "10.0.0.0/8", "10.1.2.3", "11.0.0.0")
	f("::ffff:192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2")
	refused(t, func(s string) error { _, err := ParsePrefix(s); return err },
		"", "localhost", "10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/", "/8", "10.0.0", "fe80::1%eth0", "::1/64", "10.0.0.0/8 ", "010.0.0.1", "::ffff:10.0.0.1/104")
	if _, err := ParsePrefix("10.1.2.3/8"); err == nil || !strings.Contains(err.Error(), `"10.0.0.0/8"`) {
		t.Errorf("the error does not name the range that may be meant: %v", err)
	}
	if (Prefix{}).String() != "" {
		t.Error("the zero prefix has a text")
	}
}

func TestDuration(t *testing.T) {
	f := func(s string, want time.Duration, text string) {
		t.Helper()
		d, err := ParseDuration(s)
		if err != nil || d != want || FormatDuration(d) != text {
			t.Errorf("%q: %s, %v; want %s (%s)", s, FormatDuration(d), err, want, text)
		}
	}
	f("0", 0, "0s")
	f("0s", 0, "0s")
	f("2s", 2*time.Second, "2s")
	f("75s", 75*time.Second, "1m15s")
	f("250ms", 250*time.Millisecond, "250ms")
	f("1.5h", 90*time.Minute, "1h30m")
	f("10m", 10*time.Minute, "10m")
	f("60m", time.Hour, "1h")
	f("1h5s", time.Hour+5*time.Second, "1h0m5s")
	f("1d", 24*time.Hour, "1d")
	f("7d", 7*24*time.Hour, "7d")
	f("1d12h", 36*time.Hour, "1d12h")
	f("1.5d", 36*time.Hour, "1d12h")
	f("36h", 36*time.Hour, "1d12h")
	refused(t, func(s string) error { _, err := ParseDuration(s); return err },
		"", "1", "s", "d", "-1s", "+1s", "-1d", "1d-1h", "1d0", "1d1", "1h1d", "1d1d", ".d", "1 s", "1w", "200000d", "106751d99999999h", "1hd")
}

func refused(t *testing.T, parse func(string) error, texts ...string) {
	t.Helper()
	for _, s := range texts {
		if err := parse(s); err == nil {
			t.Errorf("%q is accepted", s)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", s)) {
			t.Errorf("%q: the error does not quote it: %v", s, err)
		}
	}
}

// FuzzText checks for each type that what is accepted has a text that reads as
// the same value.
func FuzzText(f *testing.F) {
	for _, s := range []string{"0", "64MiB", "10KB", "20%", "0.001%", "100/s", "10.0.0.0/8", "::ffff:1.2.3.4", "1d12h", "1m30s", "9223372036854775807ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		roundTrip[Size](t, s)
		roundTrip[Percent](t, s)
		roundTrip[Rate](t, s)
		roundTrip[Prefix](t, s)
		if d, err := ParseDuration(s); err == nil {
			again, err := ParseDuration(FormatDuration(d))
			if d < 0 || err != nil || again != d {
				t.Fatalf("%q: %d ns, written %q, read %d ns, %v", s, d, FormatDuration(d), again, err)
			}
		}
	})
}

func roundTrip[T comparable, P interface {
	*T
	encoding.TextUnmarshaler
	fmt.Stringer
}](t *testing.T, s string) {
	var v, again T
	if P(&v).UnmarshalText([]byte(s)) != nil {
		return
	}
	text := P(&v).String()
	if err := P(&again).UnmarshalText([]byte(text)); err != nil || again != v {
		t.Fatalf("%T %q: written %q, read %v, %v", v, s, text, again, err)
	}
}
