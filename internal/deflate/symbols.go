package deflate

// Symbols of RFC 1951 section 3.2.5.
const (
	endOfBlock    = 256
	firstLength   = 257 // symbol of the shortest matches
	lengthSymbols = 29
	symbols       = 288 // of literals, the end and lengths, and two that have a fixed code only
	distances     = 30  // symbols of distances

	minMatch = 3 // of the format; parse finds none below 5
	maxMatch = 258
	window   = 32 << 10
)

// noMatch is the length, less minMatch, of a sequence that ends with none, and
// noDistance the symbol of its distance: they take no bits.
const (
	noMatch    = maxMatch - minMatch + 1
	noDistance = distances
)

// lengthOf are the symbols of matches by their length less minMatch, counted from
// firstLength; the two others say from where a symbol's lengths count, and with
// how many bits.
var (
	lengthOf    [noMatch]uint8
	lengthBase  [lengthSymbols]uint16
	lengthExtra [lengthSymbols]uint8
)

// distanceOf are the symbols of distances, less 1: the first half by the distance,
// the second by its 128th part.
var (
	distanceOf    [512]uint8
	distanceBase  [32]uint16
	distanceExtra [32]uint8
)

func init() {
	for s, from := 0, 0; s < lengthSymbols; s++ {
		if s >= 8 {
			lengthExtra[s] = uint8(s/4 - 1)
		}
		if s == lengthSymbols-1 { // the longest has a symbol for itself
			from, lengthExtra[s] = maxMatch-minMatch, 0
		}
		lengthBase[s] = uint16(from)
		for i := range 1 << lengthExtra[s] {
			lengthOf[from+i] = uint8(s)
		}
		from += 1 << lengthExtra[s]
	}
	for s, from := 0, 0; s < distances; s++ {
		if s >= 4 {
			distanceExtra[s] = uint8(s/2 - 1)
		}
		distanceBase[s] = uint16(from)
		for i := range 1 << distanceExtra[s] {
			distanceOf[distanceIndex(from+i)] = uint8(s)
		}
		from += 1 << distanceExtra[s]
	}
}

// distanceIndex is where distanceOf has the symbol of a distance, less 1.
func distanceIndex(d int) int {
	if d >= 256 {
		d = 256 + d>>7
	}
	return d
}
