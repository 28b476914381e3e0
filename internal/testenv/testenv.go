// Package testenv starts private PostgreSQL and Redis servers for tests and
// for the programs that measure things, and does to them what operations does
// to servers: it kills them, freezes them and starts them again.
//
//	pg := testenv.StartPostgres(t)
//	pool, err := pgxpool.New(ctx, pg.URL())
//	pg.Kill()    // as the OOM killer would
//	pg.Restart() // same port, same data
//
// The servers are the ones of Debian's packages. They listen on 127.0.0.1 on a
// port outside the kernel's ephemeral range, keep their data in a temporary
// folder, and are gone when the test ends; when the test process dies without
// cleaning up, the kernel kills them. A missing binary fails the test with the
// command that installs it: a test that is silently skipped proves nothing.
//
// The package works on Linux only: it reads /proc.
package testenv

import (
	"fmt"
	"os"
	"slices"
	"sync"
)

// TB is what this package needs of a *testing.T, *testing.B or *testing.F.
// Fatalf does not return.
type TB interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Program is a TB for code that is not a test: a main function or a TestMain
// whose servers are shared by all tests of a package. The zero value is ready.
// Whoever declares it calls Close.
type Program struct {
	mu       sync.Mutex
	cleanups []func()
}

// Helper does nothing.
func (p *Program) Helper() {}

// Logf writes a line to standard error.
func (p *Program) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

// Fatalf writes a line to standard error, runs the cleanups and ends the
// process with code 1.
func (p *Program) Fatalf(format string, args ...any) {
	p.Logf(format, args...)
	p.Close()
	os.Exit(1)
}

// Cleanup has f called by Close.
func (p *Program) Cleanup(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanups = append(p.cleanups, f)
}

// Close runs the cleanups, the newest first, each once.
func (p *Program) Close() {
	p.mu.Lock()
	cleanups := p.cleanups
	p.cleanups = nil
	p.mu.Unlock()
	for _, f := range slices.Backward(cleanups) {
		f()
	}
}
