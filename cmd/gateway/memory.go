package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"

	"gateway/config"
)

// memoryLimit tells the runtime how much memory there is for it beside that of
// the cache, which is no part of its heap: a tenth less than the machine or the
// container has. GOMEMLIMIT goes before.
type memoryLimit struct{ cache int64 } // bytes, of the first configuration in which a route caches

// Prepare implements proxy.Part.
func (m *memoryLimit) Prepare(c *config.Config) (commit, discard func(), err error) {
	return func() {
		if m.cache == 0 && c.Caches() {
			m.cache = int64(c.Cache.Memory)
		}
		m.set()
	}, func() {}, nil
}

func (m *memoryLimit) set() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := int64(math.MaxInt64)
	if total := availableMemory("/"); total > 0 {
		limit = max(total/10*9-m.cache, leastHeap)
	}
	debug.SetMemoryLimit(limit)
}

// leastHeap is what the runtime gets in any case: less would only make it busy.
const leastHeap = 64 << 20

// availableMemory is the memory of the machine, or of the control group of this
// process if that has less; 0 when neither is known. root is that of the file
// system.
func availableMemory(root string) (total int64) {
	least := func(n int64) {
		if n > 0 && (total == 0 || n < total) {
			total = n
		}
	}
	info, _ := os.ReadFile(filepath.Join(root, "proc/meminfo"))
	for line := range bytes.Lines(info) {
		if rest, ok := bytes.CutPrefix(line, []byte("MemTotal:")); ok {
			n, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(string(rest)), " kB"), 10, 64)
			least(n << 10)
		}
	}
	groups, _ := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	for line := range bytes.Lines(groups) {
		path, ok := bytes.CutPrefix(line, []byte("0::"))
		if !ok {
			continue
		}
		// The limits of the groups around count, too.
		for group := strings.TrimSpace(string(path)); ; group = filepath.Dir(group) {
			text, err := os.ReadFile(filepath.Join(root, "sys/fs/cgroup", group, "memory.max"))
			if err == nil {
				n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is no number
				least(n)
			}
			if group == "/" || group == "." {
				break
			}
		}
	}
	return total
}
