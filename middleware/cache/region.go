package cache

import (
	"fmt"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pageSize is the unit in which a region gives memory away.
const pageSize = 4096

// region is memory outside the Go heap: the collector neither scans nor counts
// it. More addresses are reserved than will ever hold memory, so that pieces of
// any size find a place; what is given back holds no memory until it is used
// again. Not safe for concurrent use.
type region struct {
	memory []byte
	free   []extent // by position, never adjacent
}

type extent struct{ at, size int64 }

func newRegion(size int64) (*region, error) {
	size = pages(size)
	b, err := syscall.Mmap(-1, 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes for the cache: %w", size, err)
	}
	return &region{memory: b, free: []extent{{0, size}}}, nil
}

// pages rounds up to whole pages.
func pages(n int64) int64 { return (n + pageSize - 1) &^ (pageSize - 1) }

// take finds n bytes, whole pages; false when there are none in one piece. They
// are zero unless they were part of a region that was never given back.
func (r *region) take(n int64) (at int64, ok bool) {
	for i := range r.free {
		e := &r.free[i]
		if e.size < n {
			continue
		}
		at = e.at
		e.at += n
		if e.size -= n; e.size == 0 {
			r.free = slices.Delete(r.free, i, i+1)
		}
		return at, true
	}
	return 0, false
}

// give gives n bytes back, and their memory to the system.
func (r *region) give(at, n int64) {
	if err := syscall.Madvise(r.memory[at:at+n], syscall.MADV_DONTNEED); err != nil {
		panic(fmt.Sprintf("BUG: give back %d bytes at %d: %v", n, at, err))
	}
	i, _ := slices.BinarySearchFunc(r.free, at, func(e extent, at int64) int { return int(min(max(e.at-at, -1), 1)) })
	if i > 0 && r.free[i-1].at+r.free[i-1].size == at {
		i--
		r.free[i].size += n
	} else {
		r.free = slices.Insert(r.free, i, extent{at, n})
	}
	if i+1 < len(r.free) && r.free[i].at+r.free[i].size == r.free[i+1].at {
		r.free[i].size += r.free[i+1].size
		r.free = slices.Delete(r.free, i+1, i+2)
	}
}

// close gives all addresses back. Nothing may touch the memory afterwards.
func (r *region) close() error {
	if err := syscall.Munmap(r.memory); err != nil {
		return fmt.Errorf("release the cache's memory: %w", err)
	}
	r.memory = nil
	return nil
}

// leastFill is the least number of bytes for which fill is worth its call.
const leastFill = 2 * pageSize

// shortFill is the most that is filled without telling the scheduler, in bytes:
// some tens of microseconds. When it is told of a call after a rest it wakes a
// thread that watches calls, which costs about as much.
const shortFill = 64 << 10

// maxPieces bounds the pieces of a body that fill takes.
const maxPieces = 7

var process = os.Getpid()

// fill copies into memory of a region that has hardly been used: the system puts
// pages there and bytes into them in one call, where touching the pages would
// cost an exception for each. False when the caller has to copy. It allocates
// nothing.
func fill(to, head []byte, body [][]byte) bool {
	if len(to) < leastFill || len(body) > maxPieces {
		return false
	}
	var from [1 + maxPieces]unix.Iovec
	n := 0
	add := func(b []byte) {
		if len(b) > 0 {
			from[n].Base = &b[0]
			from[n].SetLen(len(b))
			n++
		}
	}
	add(head)
	for _, piece := range body {
		add(piece)
	}
	at := [...]unix.RemoteIovec{{Base: uintptr(unsafe.Pointer(&to[0])), Len: len(to)}}
	if len(to) > shortFill {
		written, err := unix.ProcessVMWritev(process, from[:n], at[:], 0)
		return err == nil && written == len(to)
	}
	written, _, errno := syscall.RawSyscall6(unix.SYS_PROCESS_VM_WRITEV, uintptr(process),
		uintptr(unsafe.Pointer(&from)), uintptr(n), uintptr(unsafe.Pointer(&at)), uintptr(len(at)), 0)
	return errno == 0 && int(written) == len(to)
}
