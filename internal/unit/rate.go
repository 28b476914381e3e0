package unit

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rate is a number of events in a second, minute, hour or day. Its text is the
// number, "/" and s, m, h or d. The zero value is no rate; it has no text.
type Rate struct {
	Count int64         // events, 1 to 1,000,000,000
	Per   time.Duration // one second, minute, hour or day
}

const maxCount = 1_000_000_000

var periods = []struct {
	name string
	per  time.Duration
}{{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", day}}

// ParseRate reads a rate.
func ParseRate(s string) (Rate, error) {
	number, name, _ := strings.Cut(s, "/")
	for _, p := range periods {
		if p.name != name {
			continue
		}
		if whole, rest := digits(number); whole == "" || rest != "" {
			break
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < 1 || n > maxCount {
			return Rate{}, fmt.Errorf("rate %q is out of range; want 1 to %d", s, maxCount)
		}
		return Rate{n, p.per}, nil
	}
	return Rate{}, fmt.Errorf(`unexpected rate %q; want a whole number, "/" and s, m, h or d, such as "100/s"`, s)
}

// UnmarshalText reads a rate.
func (r *Rate) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRate(string(text))
	return err
}

// Interval is the time between two events at an even pace; 0 for no rate.
func (r Rate) Interval() time.Duration {
	if r.Count == 0 {
		return 0
	}
	return r.Per / time.Duration(r.Count)
}

// String is the rate as it is configured, "" for no rate.
func (r Rate) String() string {
	for _, p := range periods {
		if r.Count != 0 && p.per == r.Per {
			return strconv.FormatInt(r.Count, 10) + "/" + p.name
		}
	}
	return ""
}
