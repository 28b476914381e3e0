package metrics

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	vm "github.com/VictoriaMetrics/metrics"
)

// runtimeFamily is how a family that VictoriaMetrics/metrics writes is passed
// on.
type runtimeFamily struct {
	name string // as Prometheus' client for Go calls it, "" when both agree
	kind kind
	help string
}

// runtimeTable names the families of the process and the Go runtime that are
// passed on. VictoriaMetrics/metrics reads them, but writes no help texts,
// types only by a global switch, some names of its own, and histograms without
// sum and count. What is not listed is left out.
var runtimeTable = map[string]runtimeFamily{
	"process_cpu_seconds_total":        {"", counter, "CPU time of the process, user and system."},
	"process_cpu_seconds_system_total": {"", counter, "CPU time that the kernel spent for the process."},
	"process_cpu_seconds_user_total":   {"", counter, "CPU time that the process spent in its own code."},
	"process_major_pagefaults_total":   {"", counter, "Page faults that had to read from a disk."},
	"process_minor_pagefaults_total":   {"", counter, "Page faults that were served from memory."},
	"process_max_fds":                  {"", gauge, "File descriptors that the process may have open."},
	"process_open_fds":                 {"", gauge, "File descriptors that are open."},
	"process_num_threads":              {"", gauge, "Threads of the process."},
	"process_start_time_seconds":       {"", gauge, "When the process started, in seconds since 1970."},
	"process_virtual_memory_bytes":     {"", gauge, "Address space of the process."},
	"process_resident_memory_bytes":    {"", gauge, "Memory of the process that is in RAM."},

	"process_virtual_memory_peak_bytes":    {"", gauge, "Largest address space so far."},
	"process_resident_memory_peak_bytes":   {"", gauge, "Most memory in RAM so far."},
	"process_resident_memory_anon_bytes":   {"", gauge, "Memory in RAM that the process allocated."},
	"process_resident_memory_file_bytes":   {"", gauge, "Memory in RAM that maps files."},
	"process_resident_memory_shared_bytes": {"", gauge, "Memory in RAM that is shared with other processes."},

	"process_io_read_bytes_total":            {"", counter, "Bytes read by system calls, sockets included."},
	"process_io_written_bytes_total":         {"", counter, "Bytes written by system calls, sockets included."},
	"process_io_read_syscalls_total":         {"", counter, "System calls that read."},
	"process_io_write_syscalls_total":        {"", counter, "System calls that write."},
	"process_io_storage_read_bytes_total":    {"", counter, "Bytes read from storage."},
	"process_io_storage_written_bytes_total": {"", counter, "Bytes written to storage."},

	"process_pressure_cpu_waiting_seconds_total":    {"", counter, "Time in which some task of the control group waited for a CPU."},
	"process_pressure_cpu_stalled_seconds_total":    {"", counter, "Time in which all tasks of the control group waited for a CPU."},
	"process_pressure_io_waiting_seconds_total":     {"", counter, "Time in which some task of the control group waited for a disk."},
	"process_pressure_io_stalled_seconds_total":     {"", counter, "Time in which all tasks of the control group waited for a disk."},
	"process_pressure_memory_waiting_seconds_total": {"", counter, "Time in which some task of the control group waited for memory."},
	"process_pressure_memory_stalled_seconds_total": {"", counter, "Time in which all tasks of the control group waited for memory."},

	"process_cgroup_cpu_throttled_seconds_total": {"", counter, "Time in which the control group was kept from running, its share of CPU being used up."},

	"go_info":                {"", gauge, "Always 1; the label tells the version of Go."},
	"go_goroutines":          {"", gauge, "Goroutines that exist."},
	"go_threads":             {"", gauge, "Operating system threads created."},
	"go_gomaxprocs":          {"go_sched_gomaxprocs_threads", gauge, "Threads that may run Go code at once, GOMAXPROCS."},
	"go_memlimit_bytes":      {"go_gc_gomemlimit_bytes", gauge, "Memory limit of the Go runtime, GOMEMLIMIT."},
	"go_cgo_calls_count":     {"go_cgo_go_to_c_calls_calls_total", counter, "Calls from Go to C."},
	"go_gc_forced_count":     {"go_gc_cycles_forced_gc_cycles_total", counter, "Garbage collections that the program asked for."},
	"go_gc_duration_seconds": {"", summary, "Pauses of the last garbage collections."},

	"go_gc_pauses_seconds":       {"", histogram, "Pauses for garbage collection; the sum is estimated from the buckets."},
	"go_sched_latencies_seconds": {"", histogram, "Time that goroutines waited for a CPU; the sum is estimated from the buckets."},

	"go_mutex_wait_seconds_total":         {"go_sync_mutex_wait_total_seconds_total", counter, "Time that goroutines waited for locks, approximately."},
	"go_gc_cpu_seconds_total":             {"go_cpu_classes_gc_total_cpu_seconds_total", counter, "CPU time for garbage collection, estimated."},
	"go_gc_mark_assist_cpu_seconds_total": {"go_cpu_classes_gc_mark_assist_cpu_seconds_total", counter, "CPU time for garbage collection by goroutines that allocate, estimated."},
	"go_scavenge_cpu_seconds_total":       {"go_cpu_classes_scavenge_total_cpu_seconds_total", counter, "CPU time for returning memory to the system, estimated."},

	"go_memstats_alloc_bytes":          {"", gauge, "Bytes of heap objects that are in use or not yet collected."},
	"go_memstats_alloc_bytes_total":    {"", counter, "Bytes allocated for heap objects."},
	"go_memstats_buck_hash_sys_bytes":  {"", gauge, "Bytes for the profiler's hash table."},
	"go_memstats_frees_total":          {"", counter, "Heap objects freed."},
	"go_memstats_gc_sys_bytes":         {"", gauge, "Bytes for the garbage collector's own data."},
	"go_memstats_heap_alloc_bytes":     {"", gauge, "Bytes of heap objects that are in use or not yet collected, as alloc_bytes."},
	"go_memstats_heap_idle_bytes":      {"", gauge, "Heap bytes in spans without objects."},
	"go_memstats_heap_inuse_bytes":     {"", gauge, "Heap bytes in spans with objects."},
	"go_memstats_heap_objects":         {"", gauge, "Heap objects."},
	"go_memstats_heap_released_bytes":  {"", gauge, "Heap bytes returned to the system."},
	"go_memstats_heap_sys_bytes":       {"", gauge, "Heap bytes obtained from the system."},
	"go_memstats_last_gc_time_seconds": {"", gauge, "When the last garbage collection ended, in seconds since 1970."},
	"go_memstats_mallocs_total":        {"", counter, "Heap objects allocated."},
	"go_memstats_mcache_inuse_bytes":   {"", gauge, "Bytes of mcache structures in use."},
	"go_memstats_mcache_sys_bytes":     {"", gauge, "Bytes for mcache structures obtained from the system."},
	"go_memstats_mspan_inuse_bytes":    {"", gauge, "Bytes of mspan structures in use."},
	"go_memstats_mspan_sys_bytes":      {"", gauge, "Bytes for mspan structures obtained from the system."},
	"go_memstats_next_gc_bytes":        {"", gauge, "Heap size at which the next garbage collection starts."},
	"go_memstats_other_sys_bytes":      {"", gauge, "Bytes for other purposes of the runtime."},
	"go_memstats_stack_inuse_bytes":    {"", gauge, "Bytes of stacks in use."},
	"go_memstats_stack_sys_bytes":      {"", gauge, "Bytes for stacks obtained from the system."},
	"go_memstats_sys_bytes":            {"", gauge, "Bytes obtained from the system."},
}

// reading is the newest look at the process and the runtime. Reading stops the
// world for a moment and lists each open descriptor, so that it is done once a
// second at most, however many scrape.
var reading struct {
	sync.Mutex
	at       time.Time
	families []runtimeText
}

const readingAge = time.Second

// runtimeText is a family of the process or the runtime, ready to be sent.
type runtimeText struct {
	name string
	text []byte
}

// runtimeFamilies are the families of the process and the runtime by name.
func runtimeFamilies() []runtimeText {
	reading.Lock()
	defer reading.Unlock()
	if reading.families == nil || time.Since(reading.at) >= readingAge {
		var raw bytes.Buffer
		vm.WriteProcessMetrics(&raw)
		vm.WriteFDMetrics(&raw)
		reading.families = rewrite(raw.String())
		reading.at = time.Now()
	}
	return reading.families
}

// rewrite makes families of what VictoriaMetrics/metrics has written. The lines
// of a family stand together there.
func rewrite(raw string) []runtimeText {
	var families []runtimeText
	for raw != "" {
		name, lines, rest := nextFamily(raw)
		raw = rest
		f, listed := runtimeTable[name]
		if !listed {
			continue
		}
		if f.name != "" {
			lines = strings.ReplaceAll("\n"+lines, "\n"+name, "\n"+f.name)[1:]
			name = f.name
		}
		text := append(appendHead(nil, name, f.help, f.kind), lines...)
		if f.kind == histogram {
			text = appendEstimate(text, name, lines)
		}
		families = append(families, runtimeText{name, text})
	}
	slices.SortFunc(families, func(a, b runtimeText) int { return cmp.Compare(a.name, b.name) })
	return families
}

// nextFamily cuts the lines of the first family off raw, which is not empty.
func nextFamily(raw string) (name, lines, rest string) {
	name = familyOf(raw)
	rest = raw
	for rest != "" && familyOf(rest) == name {
		_, rest, _ = strings.Cut(rest, "\n")
	}
	return name, raw[:len(raw)-len(rest)], rest
}

// familyOf is the family of the sample that text begins with. Parts of histograms and summaries belong
// to the family without the suffix if that one is listed.
func familyOf(text string) string {
	name := text
	if i := strings.IndexAny(text, "{ \n"); i >= 0 {
		name = text[:i]
	}
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if whole, ok := strings.CutSuffix(name, suffix); ok {
			if k := runtimeTable[whole].kind; k == histogram || k == summary {
				return whole
			}
		}
	}
	return name
}

// appendEstimate appends the sum and the count that a histogram of the runtime
// lacks: each value is taken for the middle of its bucket.
func appendEstimate(b []byte, name, lines string) []byte {
	var sum, lower, count float64
	for line := range strings.Lines(lines) {
		_, line, _ = strings.Cut(line, `le="`)
		le, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), `"} `)
		upper, err := strconv.ParseFloat(le, 64)
		below, err2 := strconv.ParseFloat(value, 64)
		if err != nil || err2 != nil {
			continue
		}
		if le == "+Inf" {
			upper = lower
		}
		sum += (below - count) * (lower + upper) / 2
		lower, count = upper, below
	}
	b = appendFloat(b, name+"_sum", "", sum)
	return appendFloat(b, name+"_count", "", count)
}
