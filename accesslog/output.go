package accesslog

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// output is an open destination of lines.
type output struct {
	file *os.File
	path string // "" for a standard stream
}

// open opens a destination: "stdout", "stderr" or a file.
func open(name string) (*output, error) {
	switch name {
	case "stdout":
		return duplicate(1, name)
	case "stderr":
		return duplicate(2, name)
	}
	// O_NONBLOCK: a named pipe that nobody reads is an error, not a wait
	// without end. It means nothing to a regular file.
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open access log: %w", err)
	}
	return &output{f, name}, nil
}

// duplicate opens a standard stream under a new number: a write to a broken
// pipe ends the process when it goes to descriptor 1 or 2, and is an error on
// any other.
func duplicate(fd uintptr, name string) (*output, error) {
	again, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("open access log: duplicate %s: %w", name, err)
	}
	return &output{os.NewFile(uintptr(again), name), ""}, nil
}

// renewed opens what is now at the path of a file, nil if that is this file, or
// if it cannot be opened.
func (o *output) renewed() *output {
	if o.path == "" {
		return nil
	}
	mine, err := o.file.Stat()
	if err != nil {
		return nil
	}
	if there, err := os.Stat(o.path); err == nil && os.SameFile(mine, there) {
		return nil
	}
	fresh, err := open(o.path)
	if err != nil {
		return nil
	}
	return fresh
}
