package unit

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// ParseDuration reads a duration as time.ParseDuration does ("1.5h", "1m30s"),
// and days in front ("7d", "1d12h"). Negative durations are refused.
func ParseDuration(s string) (time.Duration, error) {
	days, rest, found := strings.Cut(s, "d")
	if !found {
		days, rest = "", s
	}
	var sum time.Duration
	if found {
		// A day is 24 hours, so Go's parser reads the number as hours.
		d, err := time.ParseDuration(days + "h")
		if err != nil || strings.Trim(days, "0123456789.") != "" || d > math.MaxInt64/24 {
			return 0, unexpectedDuration(s)
		}
		sum = 24 * d
	}
	if rest != "" || !found {
		d, err := time.ParseDuration(rest)
		if err != nil || strings.ContainsAny(rest, "+-") || sum+d < sum {
			return 0, unexpectedDuration(s)
		}
		if found && rest == "0" {
			return 0, unexpectedDuration(s)
		}
		sum += d
	}
	return sum, nil
}

func unexpectedDuration(s string) error {
	return fmt.Errorf(`unexpected duration %q; want a number with ms, s, m, h or d, such as "2s" or "1m30s"`, s)
}

// FormatDuration is text that ParseDuration reads as d, without parts that are
// zero ("10m", not "10m0s").
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	days := ""
	if d >= day {
		days = strconv.FormatInt(int64(d/day), 10) + "d"
		d %= day
		if d == 0 {
			return days
		}
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return days + s
}
