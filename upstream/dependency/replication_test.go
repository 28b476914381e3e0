package dependency

import (
	"strings"
	"testing"
	"time"
)

const (
	masterInfo  = "# Replication\r\nrole:master\r\nconnected_slaves:0\r\nmaster_failover_state:no-failover\r\n"
	replicaInfo = "# Replication\r\nrole:slave\r\nmaster_host:127.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:12\r\nmaster_sync_in_progress:0\r\n"
	orphanInfo  = "# Replication\r\nrole:slave\r\nmaster_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\nmaster_link_down_since_seconds:40\r\n"
	newInfo     = "# Replication\r\nrole:slave\r\nmaster_link_status:down\r\nmaster_last_io_seconds_ago:-1\r\nmaster_link_down_since_seconds:-1\r\n"
)

func TestRedisIsJudgedByItsReplication(t *testing.T) {
	f := func(info string, o Options, want string) {
		t.Helper()
		judged(t, parseReplication(info).judge(&o), want)
	}
	primary, lag := Options{Primary: true}, func(d time.Duration) Options { return Options{MaxLag: d} }
	f(masterInfo, primary, "")
	f(masterInfo, lag(time.Second), "")
	f(replicaInfo, primary, "role is slave; want master")
	f(replicaInfo, lag(12*time.Second), "")
	f(replicaInfo, lag(11*time.Second), "not heard its master for 12s; want at most 11s")
	f(orphanInfo, lag(time.Minute), "")
	f(orphanInfo, lag(30*time.Second), "for 40s")
	f(newInfo, lag(time.Hour), "not connected to its master")
	f("", primary, "no role")
	f("role:slave\nmaster_link_status:up\nmaster_last_io_seconds_ago:9223372036854775807\n", lag(time.Hour), "not connected")
}

func TestPostgresIsJudgedByItsRecovery(t *testing.T) {
	f := func(o Options, want string, row ...string) {
		t.Helper()
		columns := make([][]byte, len(row))
		for i, text := range row {
			if text != "NULL" {
				columns[i] = []byte(text)
			}
		}
		judged(t, judgePostgres(&o, columns), want)
	}
	f(Options{}, "", "1")
	f(Options{Primary: true}, "", "f")
	f(Options{Primary: true}, "in recovery", "t")
	f(Options{MaxLag: time.Second}, "", "f", "0")
	f(Options{MaxLag: time.Second}, "", "t", "0.999")
	f(Options{MaxLag: time.Second}, "replay is 1.500s behind; want at most 1s", "t", "1.500000")
	f(Options{MaxLag: time.Second}, "unknown", "t", "NULL")
	f(Options{MaxLag: time.Second}, "unexpected replay lag", "t", "soon")
	f(Options{MaxLag: time.Second}, "behind", "t", "NaN")
	f(Options{MaxLag: time.Second}, "more columns", "t")
	f(Options{Primary: true}, "more columns")
}

func judged(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%v; want %q", err, want)
	}
}

func FuzzReplication(f *testing.F) {
	for _, s := range []string{masterInfo, replicaInfo, orphanInfo, newInfo, "role:", "\r\n:"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, info string) {
		r := parseReplication(info)
		if r.heard < -1 || r.lost < -1 {
			t.Fatalf("%q: %+v", info, r)
		}
		if err := r.judge(&Options{Primary: true}); (err == nil) != (r.role == "master") {
			t.Fatalf("%q: %v", info, err)
		}
		r.judge(&Options{MaxLag: time.Second})
	})
}
