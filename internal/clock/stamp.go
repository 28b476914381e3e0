package clock

import "time"

// stamps are the texts of one second. They are made once a second and never
// change, so that readers may keep them.
type stamps struct {
	unix int64
	http [len(httpLayout)]byte // "Sun, 06 Nov 1994 08:49:37 GMT"
	iso  [len(isoLayout)]byte  // "1994-11-06T08:49:37"
}

const (
	httpLayout = "Mon, 02 Jan 2006 15:04:05 GMT"
	isoLayout  = "2006-01-02T15:04:05"
)

func newStamps(unix int64) *stamps {
	t, s := time.Unix(unix, 0).UTC(), &stamps{unix: unix}
	t.AppendFormat(s.http[:0], httpLayout)
	t.AppendFormat(s.iso[:0], isoLayout)
	return s
}

// HTTPDate is the current second as IMF-fixdate (RFC 9110 section 5.6.7), from
// the coarse clock. The bytes are shared: they never change and must not be
// changed. It allocates only when the clock was asleep.
func HTTPDate() []byte {
	if coarse.Load() != 0 {
		use()
		return second.Load().http[:]
	}
	rouse()
	return newStamps(time.Now().Unix()).http[:]
}

// AppendRFC3339 appends a moment, in nanoseconds since 1970, as UTC with
// milliseconds: "1994-11-06T08:49:37.123Z". Moments of the current second are
// the cheap ones. It allocates nothing beyond what b needs to grow. Years
// outside 0 to 9999 are not RFC 3339.
func AppendRFC3339(b []byte, unixNano int64) []byte {
	unix, nano := unixNano/int64(time.Second), unixNano%int64(time.Second)
	if nano < 0 {
		unix, nano = unix-1, nano+int64(time.Second)
	}
	if s := second.Load(); s.unix == unix {
		b = append(b, s.iso[:]...)
	} else {
		b = time.Unix(unix, 0).UTC().AppendFormat(b, isoLayout)
	}
	ms := nano / int64(time.Millisecond)
	return append(b, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}
