//go:build race

package nonblock

import "syscall"

// Read reads what is there; EAGAIN when nothing is, 0 at the end.
func Read(fd int, p []byte) (int, syscall.Errno) {
	n, err := syscall.Read(fd, p)
	return result(n, err)
}

// Write writes what there is room for; EAGAIN when there is none.
func Write(fd int, p []byte) (int, syscall.Errno) {
	n, err := syscall.Write(fd, p)
	return result(n, err)
}

// Writev is Write for up to three pieces at once.
func Writev(fd int, pieces [][]byte) (int, syscall.Errno) {
	for _, p := range pieces {
		if len(p) > 0 {
			return Write(fd, p)
		}
	}
	return 0, 0
}

func result(n int, err error) (int, syscall.Errno) {
	if err != nil {
		return 0, err.(syscall.Errno)
	}
	return n, 0
}
