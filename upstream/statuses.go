package upstream

import (
	"fmt"
	"strconv"
	"strings"
)

// Statuses is a set of status codes, 100 to 599. Its text is codes and ranges
// separated by commas: "200-299,401". It is comparable.
type Statuses struct{ bits [8]uint64 }

const firstStatus, lastStatus = 100, 599

// Has reports whether the status is in the set.
func (s *Statuses) Has(status int) bool {
	if status < firstStatus || status > lastStatus {
		return false
	}
	i := status - firstStatus
	return s.bits[i/64]&(1<<(i%64)) != 0
}

func (s *Statuses) add(status int) {
	i := status - firstStatus
	s.bits[i/64] |= 1 << (i % 64)
}

// UnmarshalText reads codes and ranges.
func (s *Statuses) UnmarshalText(text []byte) error {
	var set Statuses
	for part := range strings.SplitSeq(string(text), ",") {
		low, high, ranged := strings.Cut(strings.TrimSpace(part), "-")
		if !ranged {
			high = low
		}
		first, err1 := parseStatus(low)
		last, err2 := parseStatus(high)
		if err1 != nil || err2 != nil || first > last {
			return fmt.Errorf(`unexpected status codes %q; want codes from 100 to 599 and ranges, such as "200-299,401"`, text)
		}
		for status := first; status <= last; status++ {
			set.add(status)
		}
	}
	*s = set
	return nil
}

func parseStatus(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || len(s) != 3 || n < firstStatus || n > lastStatus {
		return 0, fmt.Errorf("no status code: %q", s)
	}
	return int(n), nil
}

// MarshalText is String.
func (s Statuses) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String is the shortest text of the set, "" for the empty one.
func (s Statuses) String() string {
	var b strings.Builder
	for first := firstStatus; first <= lastStatus; first++ {
		if !s.Has(first) {
			continue
		}
		last := first
		for s.Has(last + 1) {
			last++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(first))
		if last > first {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(last))
		}
		first = last
	}
	return b.String()
}
