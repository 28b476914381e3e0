package unit

import (
	"fmt"
	"strconv"
	"strings"
)

// Percent is a share between 0 and 100. Its text is a decimal number and "%".
type Percent float64

// ParsePercent reads a percentage.
func ParsePercent(s string) (Percent, error) {
	number, found := strings.CutSuffix(s, "%")
	whole, rest := digits(number)
	fraction, dotted := strings.CutPrefix(rest, ".")
	decimals, rest := digits(fraction)
	if !found || whole == "" || rest != "" || dotted == (decimals == "") {
		return 0, fmt.Errorf(`unexpected percentage %q; want a number and %%, such as "20%%"`, s)
	}
	p, err := strconv.ParseFloat(number, 64)
	if err != nil || p > 100 {
		return 0, fmt.Errorf("percentage %q is out of range; want 0%% to 100%%", s)
	}
	return Percent(p), nil
}

// UnmarshalText reads a percentage.
func (p *Percent) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePercent(string(text))
	return err
}

// Fraction is the share between 0 and 1.
func (p Percent) Fraction() float64 { return float64(p) / 100 }

// String is the shortest text that reads as the same percentage.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }
