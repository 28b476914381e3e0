// Package deflate compresses bodies that are there as a whole, in the format of
// RFC 1951. It has one level: as fast as can be for bodies of the size that zlib
// makes at its level 1.
//
// A block is made in three steps, each a plain loop: parse finds repetitions
// (greedily, one candidate per place, as LZ4 does), huffman.go makes codes for
// what was found, and write puts it down without a branch per literal. What is
// remembered fits into the nearest cache of a processor.
package deflate
