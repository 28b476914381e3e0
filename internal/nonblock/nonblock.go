//go:build !race

// Package nonblock reads and writes sockets that do not block, without telling
// the runtime: the calls return at once, so that nobody has to take over the
// thread's work meanwhile. Writes raise no signal. With the race detector, the
// calls of package syscall are used instead, which it understands.
package nonblock

import (
	"syscall"
	"unsafe"
)

// Read reads what is there; EAGAIN when nothing is, 0 at the end. (To the kernel
// recvfrom is less work than read, which is for all kinds of files.)
func Read(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	return result(n, errno)
}

// Write writes what there is room for; EAGAIN when there is none.
func Write(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		syscall.MSG_NOSIGNAL, 0, 0)
	return result(n, errno)
}

// Writev is Write for up to three pieces at once.
func Writev(fd int, pieces [][]byte) (int, syscall.Errno) {
	var vector [3]syscall.Iovec
	for i, b := range pieces {
		vector[i].Base = unsafe.SliceData(b)
		vector[i].SetLen(len(b))
	}
	message := syscall.Msghdr{Iov: &vector[0], Iovlen: uint64(len(pieces))}
	n, _, errno := syscall.RawSyscall(syscall.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&message)), syscall.MSG_NOSIGNAL)
	return result(n, errno)
}

func result(n uintptr, errno syscall.Errno) (int, syscall.Errno) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}
