package cache

import (
	"io"
	"slices"
	"time"
)

// Write adds bytes of the body, which are copied. It waits for readers that are
// far behind when nothing is stored. ErrUnwanted when nobody needs them: then,
// and also after other errors, the caller calls Fail.
func (f *Flight) Write(p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.length >= 0 && f.end+int64(len(p)) > f.length {
		return io.ErrShortWrite
	}
	if f.storing && f.end+int64(len(p)) > f.limit() {
		f.abandon(TooLarge)
	}
	if !f.storing && (len(f.readers) == 0 || f.phase == phaseAlone) {
		return ErrUnwanted
	}
	for len(p) > 0 {
		if !f.storing {
			f.discard()
			if err := f.awaitSpace(); err != nil {
				return err
			}
		}
		n := len(f.chunks)
		if n == 0 || len(f.chunks[n-1]) == cap(f.chunks[n-1]) {
			size := f.chunkSize(len(p))
			if f.storing && f.c.filling.Add(size) > f.c.maxFilling {
				f.c.filling.Add(-size)
				f.abandon(NoMemory)
				continue
			} else if !f.storing {
				f.c.filling.Add(size)
			}
			f.held += size
			f.chunks = append(f.chunks, make([]byte, 0, size))
			n = len(f.chunks)
		}
		last := f.chunks[n-1]
		k := min(len(p), cap(last)-len(last))
		f.chunks[n-1] = append(last, p[:k]...)
		p = p[k:]
		f.end += int64(k)
		f.wakeAll()
	}
	return nil
}

// chunkSize is the size of the next chunk: all of a body of known length when it
// is going to be stored, else more and more.
func (f *Flight) chunkSize(need int) int64 {
	if f.storing && f.length >= 0 && len(f.chunks) == 0 {
		return f.length
	}
	return min(max(int64(need), f.end, minChunk), maxChunk)
}

// abandon gives up storing; readers go on.
func (f *Flight) abandon(reason NoStoreReason) {
	f.storing, f.reason = false, reason
}

// discard frees the chunks that all readers have passed.
func (f *Flight) discard() {
	least := f.end
	for _, r := range f.readers {
		least = min(least, r.at)
	}
	for len(f.chunks) > 0 && f.base+int64(len(f.chunks[0])) <= least {
		f.base += int64(len(f.chunks[0]))
		f.held -= int64(cap(f.chunks[0]))
		f.c.filling.Add(-int64(cap(f.chunks[0])))
		f.chunks[0] = nil
		f.chunks = f.chunks[1:]
	}
}

// awaitSpace waits until no reader is far behind; those that stay there are cut
// off. f.mu is held before and after.
func (f *Flight) awaitSpace() error {
	var timer *time.Timer
	for {
		least := f.end
		for _, r := range f.readers {
			least = min(least, r.at)
		}
		if len(f.readers) == 0 {
			return ErrUnwanted
		}
		if f.end-least < max(windowBytes, f.limit()) {
			return nil
		}
		if timer == nil {
			timer = time.NewTimer(f.c.stall)
			defer timer.Stop()
		}
		f.mu.Unlock()
		late := false
		select {
		case <-f.space:
		case <-timer.C:
			late = true
		}
		f.mu.Lock()
		if late {
			f.readers = slices.DeleteFunc(f.readers, func(r *Reader) bool {
				if f.end-r.at < max(windowBytes, f.limit()) {
					return false
				}
				r.err = ErrSlowReader
				r.signal()
				return true
			})
		}
		f.discard()
	}
}
