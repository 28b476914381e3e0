package accesslog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// start is a logger to the named file that is closed at the end of the test.
func start(t *testing.T, o Options, warn func(error)) *Logger {
	t.Helper()
	if o.Sample == 0 {
		o.Sample = 100
	}
	if o.Queue == 0 {
		o.Queue = 8192
	}
	l, err := New(o, warn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(5 * time.Second) })
	return l
}

// within polls until ok, for at most ten seconds.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// numbered is a record that tells who logged it, and as which one.
func numbered(worker, i int) *Record {
	return &Record{Route: fmt.Sprint(worker), Attempts: i}
}

type parsed struct {
	Route    string
	Attempts int
}

// parse reads lines and fails on any that is not whole.
func parse(t *testing.T, text []byte) (lines []parsed) {
	t.Helper()
	for line := range bytes.Lines(text) {
		var p parsed
		if err := json.Unmarshal(line, &p); err != nil || line[len(line)-1] != '\n' {
			t.Fatalf("torn line %q: %v", line, err)
		}
		lines = append(lines, p)
	}
	return lines
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestLinesAreWrittenInOrderAndFlushedByClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := start(t, Options{Output: path}, nil)
	const n = 3000
	for i := range n {
		l.Log(numbered(0, i))
	}
	if err := l.Close(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	lines := parse(t, read(t, path))
	if len(lines) != n {
		t.Fatalf("%d lines; want %d", len(lines), n)
	}
	for i, p := range lines {
		if p.Attempts != i {
			t.Fatalf("line %d is number %d", i, p.Attempts)
		}
	}
	l.Log(numbered(0, n))
	if l.Dropped() != 1 || len(parse(t, read(t, path))) != n {
		t.Errorf("a record after Close: %d dropped", l.Dropped())
	}
	if err := l.Close(time.Second); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := l.Reopen(); err != nil {
		t.Errorf("Reopen after Close: %v", err)
	}
}

func TestSingleLineIsWrittenSoon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := start(t, Options{Output: path}, nil)
	for i := range 3 {
		l.Log(numbered(0, i))
		within(t, "the line is in the file", func() bool { return len(parse(t, read(t, path))) == i+1 })
	}
}

func TestBuffersOfABurstAreGivenUpLater(t *testing.T) {
	l := &Logger{maxLines: 1 << 20, maxBytes: 1 << 30, wake: make(chan struct{}, 1), hurry: make(chan struct{}, 1)}
	batch := func(lines int) {
		for range lines {
			l.enqueue(make([]byte, 1000))
		}
		b, _ := l.take()
		l.give(b)
	}
	for range 4 {
		batch(2000)
	}
	if cap(l.pending) < 2_000_000 || cap(l.writer.spare) < 2_000_000 {
		t.Errorf("buffers of %d and %d bytes after a burst", cap(l.pending), cap(l.writer.spare))
	}
	for range 2 * patience {
		batch(1)
	}
	if cap(l.pending)+cap(l.writer.spare) > 8*fullBatch {
		t.Errorf("buffers of %d and %d bytes a while after the burst", cap(l.pending), cap(l.writer.spare))
	}
}

func TestLoggerThatIsOffDoesNothing(t *testing.T) {
	l, err := New(Options{Output: "off"}, nil)
	if l != nil || err != nil {
		t.Fatalf("got %v, %v", l, err)
	}
	l.Log(&Record{})
	if l.Dropped() != 0 || l.Failures() != 0 || l.Reopen() != nil || l.Close(0) != nil {
		t.Error("a nil logger did something")
	}
}

func TestOutputThatCannotBeOpenedIsAnError(t *testing.T) {
	if _, err := New(Options{Output: filepath.Join(t.TempDir(), "missing", "access.log")}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Output: pipe}, nil); !errors.Is(err, syscall.ENXIO) {
		t.Errorf("a pipe without a reader: got %v", err)
	}
}

func TestRotationUnderLoadLosesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "access.log")
	l := start(t, Options{Output: path, Queue: 1 << 20}, nil)
	const workers, rotations = 4, 20
	var logged [workers]int
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for ; !stop.Load(); logged[w]++ {
				l.Log(numbered(w, logged[w]))
				time.Sleep(10 * time.Microsecond)
			}
		})
	}
	var files []string
	for i := range rotations {
		old := fmt.Sprintf("%s.%d", path, i)
		files = append(files, old)
		if err := os.Rename(path, old); err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
		within(t, "the new file is written to", func() bool {
			info, err := os.Stat(path)
			return err == nil && info.Size() > 0
		})
	}
	stop.Store(true)
	wg.Wait()
	if err := l.Close(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if l.Dropped() != 0 {
		t.Fatalf("%d lines dropped", l.Dropped())
	}
	var next [workers]int
	for _, file := range append(files, path) {
		for _, p := range parse(t, read(t, file)) {
			var w int
			fmt.Sscan(p.Route, &w)
			if p.Attempts != next[w] {
				t.Fatalf("%s: worker %d's line %d comes where %d should", file, w, p.Attempts, next[w])
			}
			next[w]++
		}
	}
	if next != logged {
		t.Errorf("lines by worker: %d; logged %d", next, logged)
	}
}

func TestBlockedPipeDropsCountsAndRecovers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	const queue = 100
	l := start(t, Options{Output: path, Queue: queue}, nil)
	logged := 0
	began := time.Now()
	for l.Dropped() < 1000 {
		l.Log(numbered(0, logged))
		logged++
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("%d lines took %v", logged, took)
	}
	// Nobody has read: some lines are in the pipe, as many as allowed in the
	// queue, and the others are counted.
	var lines []parsed
	r := bufio.NewReader(pipe)
	next := func() parsed {
		line, err := r.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		return parse(t, line)[0]
	}
	for kept := logged - int(l.Dropped()); len(lines) < kept; {
		lines = append(lines, next())
	}
	for i, p := range lines[1:] {
		if p.Attempts <= lines[i].Attempts {
			t.Fatalf("line %d follows %d", p.Attempts, lines[i].Attempts)
		}
	}
	before := l.Dropped()
	within(t, "the queue has room again", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return l.lines+l.writing == 0 })
	l.Log(numbered(1, 7))
	if p := next(); p.Route != "1" || p.Attempts != 7 {
		t.Errorf("after the recovery: %+v", p)
	}
	if l.Dropped() != before || l.Failures() != 0 {
		t.Errorf("%d dropped, %d failures", l.Dropped()-before, l.Failures())
	}
}

func TestCloseDoesNotWaitForABlockedPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	l := start(t, Options{Output: path, Queue: 4096}, nil)
	for i := range 4096 {
		l.Log(numbered(0, i))
	}
	began := time.Now()
	if err := l.Close(50 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "lines were not written within 50ms") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("Close took %v", took)
	}
	go io.Copy(io.Discard, pipe) // lets the writer end
	<-l.done
}

func TestFullDiskIsCountedAndSurvived(t *testing.T) {
	dir := t.TempDir()
	path, file := filepath.Join(dir, "access.log"), filepath.Join(dir, "file")
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}
	warnings := make(chan error, 10)
	l := start(t, Options{Output: path}, func(err error) { warnings <- err })
	l.Log(numbered(0, 0))
	within(t, "several failures are counted", func() bool { return l.Failures() >= 3 })
	if err := <-warnings; !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("warned of %v", err)
	}
	l.Log(numbered(0, 1))
	// Somebody repairs the output: the writer finds it without being told.
	if err := os.Symlink(file, path+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	within(t, "both lines are written", func() bool {
		text, _ := os.ReadFile(file)
		return bytes.Count(text, []byte("\n")) == 2
	})
	if err := <-warnings; err != nil {
		t.Errorf("after the recovery: warned of %v", err)
	}
	if l.Dropped() != 0 || len(warnings) != 0 {
		t.Errorf("%d dropped, %d warnings more", l.Dropped(), len(warnings))
	}
}

func TestCloseGivesUpOnAnOutputThatFails(t *testing.T) {
	l := start(t, Options{Output: "/dev/full"}, nil)
	for i := range 5 {
		l.Log(numbered(0, i))
	}
	began := time.Now()
	if err := l.Close(time.Minute); err == nil || !strings.Contains(err.Error(), "5 lines could not be written") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("Close took %v", took)
	}
	if l.Dropped() != 5 {
		t.Errorf("%d dropped", l.Dropped())
	}
}

func TestTornLineBeginsAnewInANewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	l := start(t, Options{Output: path}, nil)
	const n = 2000 // more than a pipe holds, so that the write stops inside a line
	for i := range n {
		l.Log(numbered(0, i))
	}
	within(t, "the writer has taken lines that fill the pipe", func() bool {
		var unread int
		if unread, err = unix.IoctlGetInt(int(pipe.Fd()), unix.TIOCINQ); err != nil {
			t.Fatal(err)
		}
		return unread >= 60<<10
	})
	// The reader goes away and a file takes the pipe's place.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := pipe.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, "the last line is in the file", func() bool {
		text, _ := os.ReadFile(path)
		return bytes.HasSuffix(text, []byte("\n")) && bytes.Contains(text, []byte(fmt.Sprintf(`"attempts":%d,`, n-1)))
	})
	lines := parse(t, read(t, path))
	for i, p := range lines {
		if p.Attempts != n-len(lines)+i {
			t.Fatalf("line %d of %d is number %d", i, len(lines), p.Attempts)
		}
	}
	if l.Failures() == 0 || l.Dropped() != 0 {
		t.Errorf("%d failures, %d dropped", l.Failures(), l.Dropped())
	}
}

// A write to a broken standard output ends a Go program, unless it goes to
// another descriptor.
func TestBrokenStandardOutputDoesNotEndTheProcess(t *testing.T) {
	if os.Getenv("ACCESSLOG_TEST_CHILD") != "" {
		l, err := New(Options{Output: "stdout", Sample: 100, Queue: 16}, nil)
		if err != nil {
			os.Exit(3)
		}
		for end := time.Now().Add(10 * time.Second); l.Failures() == 0 || l.Dropped() == 0; time.Sleep(time.Millisecond) {
			if l.Log(numbered(0, 0)); time.Now().After(end) {
				os.Exit(4)
			}
		}
		os.Exit(0)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), "ACCESSLOG_TEST_CHILD=1")
	child.Stdout = w
	if err := child.Run(); err != nil {
		t.Errorf("child: %v", err)
	}
	w.Close()
}

func TestConcurrentUse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := start(t, Options{Output: path, Format: "text", Queue: 64}, nil)
	var logged atomic.Int64
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 1000 {
				l.Log(numbered(w, i))
				logged.Add(1)
				if i%100 == w {
					l.Reopen()
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(read(t, path), []byte("\n")); int64(n)+int64(l.Dropped()) != logged.Load() {
		t.Errorf("%d written, %d dropped, %d logged", n, l.Dropped(), logged.Load())
	}
}

func BenchmarkLog(b *testing.B) {
	f := func(format string) {
		b.Run(format, func(b *testing.B) {
			l, err := New(Options{Output: "/dev/null", Format: format, Sample: 100, Query: true, Queue: 8192}, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close(time.Second)
			r := example()
			b.ReportAllocs()
			for b.Loop() {
				l.Log(r)
			}
			b.ReportMetric(float64(l.Dropped())/float64(b.N), "dropped/op")
		})
	}
	f("json")
	f("text")
}
