// Package unit reads and writes the quantities that the configuration spells
// with a unit: sizes, percentages, rates, address prefixes and durations.
//
// Each type unmarshals from text, and its String is text that unmarshals to
// the same value. Errors quote what was found and say what is wanted.
package unit

import "strings"

// digits splits s after its leading decimal digits.
func digits(s string) (number, rest string) {
	rest = strings.TrimLeft(s, "0123456789")
	return s[:len(s)-len(rest)], rest
}
