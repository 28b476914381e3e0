package cache

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cespare/xxhash/v2"
)

// A saved store is this line, the last shared purge that it has seen (u64), the
// hash of both (u64), and then records: the length of the entry's bytes
// (u32), when it is dead (i64 ns), whether it counts as stale (u8), the hash of
// these and the bytes (u64), and the bytes. A record of length 0 is the last.
const (
	savedMagic   = "gateway cache 2\n"
	recordHeader = 4 + 8 + 1 + 8
)

// ErrSaved is what Load returns when a file is not what Save wrote.
var ErrSaved = errors.New("not a whole saved cache")

// Save writes the stored responses to a file that replaces what has this path,
// readable by its owner only. It stops at the deadline: the file then has what
// was written until then. Nobody may use the cache meanwhile: what is changed or
// purged after it was written would come back.
func (c *Cache) Save(path string, now int64, deadline time.Time) (entries int, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".cache-")
	if err != nil {
		return 0, fmt.Errorf("save cache: %w", err)
	}
	defer func() {
		_ = f.Close()
		_ = os.Remove(f.Name())
	}()
	w := bufio.NewWriterSize(f, 1<<20)
	head := le.AppendUint64([]byte(savedMagic), c.known.Load())
	if _, err := w.Write(le.AppendUint64(head, hashOf(head))); err != nil {
		return 0, fmt.Errorf("save cache: %w", err)
	}
	var header [recordHeader]byte
	err = c.store.walk(func(e Entry, dead int64) error {
		if time.Now().After(deadline) {
			return os.ErrDeadlineExceeded
		}
		if dead <= now {
			return nil
		}
		header[12] = 0
		if e.soft {
			header[12] = 1
		}
		le.PutUint32(header[:], uint32(len(e.blob)))
		le.PutUint64(header[4:], uint64(dead))
		le.PutUint64(header[13:], checksum(header[:13], e.blob))
		entries++
		if _, err := w.Write(header[:]); err != nil {
			return err
		}
		_, err := w.Write(e.blob)
		return err
	})
	if err != nil && err != os.ErrDeadlineExceeded {
		return 0, fmt.Errorf("save cache: %w", err)
	}
	clear(header[:])
	_, _ = w.Write(header[:]) // Flush repeats its error
	if err := w.Flush(); err != nil {
		return 0, fmt.Errorf("save cache: %w", err)
	}
	if err := f.Close(); err != nil {
		return 0, fmt.Errorf("save cache: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return 0, fmt.Errorf("save cache: %w", err)
	}
	return entries, nil
}

func checksum(header, blob []byte) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(header)
	_, _ = d.Write(blob)
	return d.Sum64()
}

// Load stores what Save wrote, as far as it is of use, fits and is intact. It
// stops at the deadline without an error, and at the first record that is
// damaged with ErrSaved; what was read before stays. It is meant for a cache
// that nobody uses yet.
func (c *Cache) Load(path string, now int64, deadline time.Time) (entries int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("load cache: %w", err)
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, 1<<20)
	const known = len(savedMagic)
	head := make([]byte, known+16)
	if _, err := io.ReadFull(r, head); err != nil || string(head[:known]) != savedMagic || hashOf(head[:known+8]) != le.Uint64(head[known+8:]) {
		return 0, ErrSaved
	}
	// Purges that it has missed are made up for when a tier joins.
	c.known.Store(le.Uint64(head[known:]))
	var header [recordHeader]byte
	var blob []byte
	for time.Now().Before(deadline) {
		if _, err := io.ReadFull(r, header[:]); err != nil {
			return entries, ErrSaved
		}
		n := int64(le.Uint32(header[:]))
		if n == 0 {
			return entries, nil
		}
		if n > 1<<30 {
			return entries, ErrSaved
		}
		if n > int64(cap(blob)) {
			blob = make([]byte, n)
		}
		blob = blob[:n]
		if _, err := io.ReadFull(r, blob); err != nil || checksum(header[:13], blob) != le.Uint64(header[13:]) {
			return entries, ErrSaved
		}
		if c.restore(blob, int64(le.Uint64(header[4:])), now, header[12] != 0) {
			entries++
		}
	}
	return entries, nil
}

// restore stores a block that came from a file.
func (c *Cache) restore(b []byte, dead, now int64, soft bool) bool {
	e, ok := DecodeEntry(b)
	if !ok {
		if e, ok = decodeLists(b); !ok {
			return false
		}
	}
	if dead <= now {
		return false
	}
	if t := e.Terms(); t.Received > now+3600*second {
		return false // the clock went back far: nothing is known about its age
	}
	for id := e.id(); ; {
		last := c.ids.Load()
		if id <= last || c.ids.CompareAndSwap(last, id) {
			break
		}
	}
	le.PutUint64(b[atSequence:], c.purges.sequence.Load())
	hash := c.store.hash(e.key())
	if !c.store.put(hash, b, nil, dead, now) {
		return false
	}
	if soft {
		c.store.soften(hash, e.key())
	}
	return true
}

// decodeLists checks a block that holds the names by which variants differ.
func decodeLists(b []byte) (Entry, bool) {
	if len(b) < metaSize || le.Uint16(b) != entryVersion {
		return Entry{}, false
	}
	e := Entry{blob: b}
	if e.flags() != flagVary || e.u32(atTags)|e.u32(atVaryLen)|e.u32(atHeadLen) != 0 || e.u32(atKeyLen) != e.u32(atPrimaryLen) ||
		e.keyEnd() > len(b) {
		return Entry{}, false
	}
	if _, ok := splitKey(e.primary()); !ok {
		return Entry{}, false
	}
	for lists := e.Body(); len(lists) > 0; {
		if len(lists) < 2 {
			return Entry{}, false
		}
		n := 2 + int(lists[0])<<8 + int(lists[1])
		if n < 3 || n > len(lists) || lists[n-1] != ',' {
			return Entry{}, false
		}
		lists = lists[n:]
	}
	return e, true
}
