package unit

import (
	"fmt"
	"math"
	"strconv"
)

// Size is a number of bytes, never negative. Its text is a whole number with
// B, KiB, MiB, GiB or the decimal KB, MB, GB; "0" needs no unit.
type Size int64

const (
	B   Size = 1
	KiB      = 1024 * B
	MiB      = 1024 * KiB
	GiB      = 1024 * MiB
	KB       = 1000 * B
	MB       = 1000 * KB
	GB       = 1000 * MB
)

// sizes is in the order in which String tries the units: the binary ones
// first, so that 64 KiB does not become 65536B.
var sizes = []struct {
	name string
	unit Size
}{{"GiB", GiB}, {"MiB", MiB}, {"KiB", KiB}, {"GB", GB}, {"MB", MB}, {"KB", KB}, {"B", B}}

// ParseSize reads a size.
func ParseSize(s string) (Size, error) {
	number, name := digits(s)
	n, err := strconv.ParseInt(number, 10, 64)
	if number == "" || (err == nil && name == "" && n != 0) {
		return 0, fmt.Errorf(`unexpected size %q; want a whole number with B, KiB, MiB, GiB, KB, MB or GB, such as "64MiB"`, s)
	}
	if name == "" && err == nil {
		return 0, nil
	}
	for _, u := range sizes {
		if u.name != name {
			continue
		}
		if err != nil || n > math.MaxInt64/int64(u.unit) {
			return 0, fmt.Errorf("size %q is too large", s)
		}
		return Size(n) * u.unit, nil
	}
	return 0, fmt.Errorf("unknown unit %q in size %q; want B, KiB, MiB, GiB, KB, MB or GB", name, s)
}

// UnmarshalText reads a size.
func (z *Size) UnmarshalText(text []byte) (err error) {
	*z, err = ParseSize(string(text))
	return err
}

// String is the size in the largest unit that divides it.
func (z Size) String() string {
	for _, u := range sizes {
		if z != 0 && z%u.unit == 0 {
			return strconv.FormatInt(int64(z/u.unit), 10) + u.name
		}
	}
	return "0"
}
