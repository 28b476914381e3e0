package cache

import (
	"gateway/internal/ascii"
	"gateway/wire"
)

// noDate is a date that is missing or invalid.
const noDate = -1 << 63

// ParseDate reads an HTTP date in any of its three forms (RFC 9110 section
// 5.6.7) as seconds since 1970. Case does not matter and any zone but GMT is
// invalid (RFC 9111 section 4.2). now, in seconds, decides which century a year
// of two digits is in. It allocates nothing.
func ParseDate(s []byte, now int64) (unix int64, ok bool) {
	var year, month, day int
	var clock []byte
	comma := 0
	for comma < len(s) && s[comma] != ',' {
		comma++
	}
	switch {
	case comma == 3 && len(s) == 29: // Sun, 06 Nov 1994 08:49:37 GMT
		if s[4] != ' ' || s[7] != ' ' || s[11] != ' ' || s[16] != ' ' || !isGMT(s[25:]) {
			return 0, false
		}
		day, month, year, clock = digits(s[5:7]), monthOf(s[8:11]), digits(s[12:16]), s[17:25]
		if !isDay(s[:3], 3) {
			return 0, false
		}
	case comma >= 6 && comma < len(s) && len(s) == comma+24: // Sunday, 06-Nov-94 08:49:37 GMT
		r := s[comma+1:]
		if r[0] != ' ' || r[3] != '-' || r[7] != '-' || r[10] != ' ' || !isGMT(r[19:]) || !isDay(s[:comma], 9) {
			return 0, false
		}
		day, month, year, clock = digits(r[1:3]), monthOf(r[4:7]), digits(r[8:10]), r[11:19]
		if year < 0 {
			return 0, false
		}
		this, _, _ := civil(now)
		year += this / 100 * 100
		// More than 50 years ahead means the last such year in the past.
		switch {
		case year > this+50:
			year -= 100
		case year <= this-50:
			year += 100
		}
	case comma == len(s) && len(s) == 24: // Sun Nov  6 08:49:37 1994
		if s[3] != ' ' || s[7] != ' ' || s[10] != ' ' || s[19] != ' ' || !isDay(s[:3], 3) {
			return 0, false
		}
		month, clock, year = monthOf(s[4:7]), s[11:19], digits(s[20:24])
		if s[8] == ' ' {
			day = digits(s[9:10])
		} else {
			day = digits(s[8:10])
		}
	default:
		return 0, false
	}
	if clock[2] != ':' || clock[5] != ':' {
		return 0, false
	}
	hour, minute, second := digits(clock[:2]), digits(clock[3:5]), digits(clock[6:])
	if year < 0 || month < 0 || day < 1 || day > daysIn(year, month) ||
		hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 60 {
		return 0, false
	}
	return daysSince1970(year, month+1, day)*86400 + int64(hour*3600+minute*60+second), true
}

func isGMT(s []byte) bool { return len(s) == 4 && s[0] == ' ' && ascii.EqualFold(s[1:], "gmt") }

// digits is a number of digits only, -1 when it is not one.
func digits(s []byte) int {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	return n
}

var dayNames = [7]string{"sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"}

// isDay reports whether s is a day's name, or its first letters if short is 3.
func isDay(s []byte, short int) bool {
	for _, name := range dayNames {
		if ascii.EqualFold(s, view(name[:min(short, len(name))])) {
			return true
		}
	}
	return false
}

const monthNames = "janfebmaraprmayjunjulaugsepoctnovdec"

// monthOf is 0 to 11, or -1.
func monthOf(s []byte) int {
	for m := range 12 {
		if ascii.EqualFold(s, view(monthNames[3*m:3*m+3])) {
			return m
		}
	}
	return -1
}

func daysIn(year, month int) int {
	switch month {
	case 1:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 3, 5, 8, 10:
		return 30
	}
	return 31
}

// daysSince1970 counts days in the proleptic Gregorian calendar; the year
// begins in March, so that a leap day is its last.
func daysSince1970(year, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	return int64(365*year+year/4-year/100+year/400+(153*(month-3)+2)/5+day-1) - 719468
}

// civil is the year, month and day of a moment after 1970.
func civil(unix int64) (year, month, day int) {
	days := int(unix/86400) + 719468
	era := days / 146097
	d := days - era*146097
	y := (d - d/1460 + d/36524 - d/146096) / 365
	rest := d - (365*y + y/4 - y/100)
	m := (5*rest + 2) / 153
	year, month, day = y+era*400, m+3, rest-(153*m+2)/5+1
	if month > 12 {
		month -= 12
		year++
	}
	return year, month, day
}

// dateField is the date in a field that has one value: noDate when there is
// none, when it is invalid, and when there are several that differ.
func dateField(h *wire.Header, id wire.FieldID, now int64) int64 {
	i := h.Next(id, 0)
	if i < 0 {
		return noDate
	}
	_, value, _, _ := h.Field(i)
	unix, ok := ParseDate(value, now)
	if !ok {
		return noDate
	}
	for i = h.Next(id, i+1); i >= 0; i = h.Next(id, i+1) {
		_, value, _, _ = h.Field(i)
		if other, ok := ParseDate(value, now); !ok || other != unix {
			return noDate
		}
	}
	return unix
}

// ParseAge reads the Age fields: the first member of a list counts, and what is
// not a number of seconds is 0, as if it were missing (RFC 9111 section 5.1).
func ParseAge(h *wire.Header) int64 {
	value := h.Get(wire.Age)
	for i, c := range value {
		if c == ',' {
			value = ascii.TrimSpace(value[:i])
			break
		}
	}
	seconds, _ := parseDelta(value)
	return seconds
}

const (
	dayShort   = "SunMonTueWedThuFriSat"
	monthShort = "JanFebMarAprMayJunJulAugSepOctNovDec"
)

// AppendDate appends a moment, in seconds since 1970, as an HTTP date.
func AppendDate(b []byte, unix int64) []byte {
	unix = max(unix, 0)
	year, month, day := civil(unix)
	weekday := int(unix/86400+4) % 7
	b = append(b, dayShort[3*weekday:3*weekday+3]...)
	b = append(b, ", "...)
	b = append(appendTwo(b, day), ' ')
	b = append(b, monthShort[3*month-3:3*month]...)
	b = append(b, ' ')
	b = appendTwo(b, year/100%100)
	b = append(appendTwo(b, year%100), ' ')
	second := int(unix % 86400)
	b = append(appendTwo(b, second/3600), ':')
	b = append(appendTwo(b, second/60%60), ':')
	b = appendTwo(b, second%60)
	return append(b, " GMT"...)
}

func appendTwo(b []byte, n int) []byte { return append(b, byte('0'+n/10), byte('0'+n%10)) }
