package nonblock

import (
	"syscall"
	"unsafe"
)

// Silent reports whether nothing lies in the socket to be read, neither bytes
// nor its end. spot is memory for it.
func Silent(fd int, spot *[1]byte) bool {
	for {
		_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(spot)), 1,
			syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
		if errno != syscall.EINTR {
			return errno == syscall.EAGAIN
		}
	}
}
