package dependency

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// replication is what a Redis server says of its part in replication.
type replication struct {
	role   string // master or slave
	linked bool   // a replica is connected to its master
	heard  int64  // seconds since a linked replica heard its master, -1 unknown
	lost   int64  // seconds since a replica lost its master, -1 unknown
}

// parseReplication reads the answer to INFO replication, lines of name:value.
func parseReplication(info string) replication {
	r := replication{heard: -1, lost: -1}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "role":
			r.role = value
		case "master_link_status":
			r.linked = value == "up"
		case "master_last_io_seconds_ago":
			r.heard = parseSeconds(value)
		case "master_link_down_since_seconds":
			r.lost = parseSeconds(value)
		}
	}
	return r
}

// parseSeconds is -1 for what is no number of seconds; Redis itself says -1
// for what it does not know.
func parseSeconds(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/int64(time.Second) {
		return -1
	}
	return n
}

// judge says what is wrong with a server that replicates so.
func (r replication) judge(o *Options) error {
	switch {
	case r.role == "":
		return errors.New("INFO replication tells no role")
	case r.role == "master":
		return nil
	case o.Primary:
		return fmt.Errorf("role is %s; want master", r.role)
	case o.MaxLag == 0:
		return nil
	}
	behind := r.heard
	if !r.linked {
		behind = r.lost
	}
	if behind < 0 {
		return errors.New("replica is not connected to its master")
	}
	if lag := time.Duration(behind) * time.Second; lag > o.MaxLag {
		return fmt.Errorf("replica has not heard its master for %v; want at most %v", lag, o.MaxLag)
	}
	return nil
}
