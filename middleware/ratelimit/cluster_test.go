package ratelimit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gateway/internal/clock"
)

// instance is a Redis server of a cluster, or of those that Sentinels watch.
type instance struct {
	*redis.Client
	address string
	port    int
	kill    func() // does nothing a second time
}

// launch runs a server with these arguments until the test ends.
func launch(t *testing.T, arguments ...string) *instance {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal(err)
	}
	free := func(port int) bool {
		l, err := net.Listen("tcp4", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			l.Close()
		}
		return err == nil
	}
	for range 100 {
		port := 12_000 + rand.N(10_000) // a cluster's bus has the port beyond by 10,000
		if !free(port) || !free(port+10_000) {
			continue
		}
		cmd := exec.Command(path, append(arguments, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", t.TempDir())...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait()
			close(ended)
		}()
		s := &instance{address: fmt.Sprint("127.0.0.1:", port), port: port}
		s.kill = func() {
			_ = cmd.Process.Kill()
			<-ended
		}
		s.Client = redis.NewClient(&redis.Options{Addr: s.address})
		t.Cleanup(func() {
			_ = s.Close()
			s.kill()
		})
		served := false
		eventually(t, "the server", func() bool {
			select {
			case <-ended: // another process took the port meanwhile
				return true
			default:
				served = s.Ping(t.Context()).Err() == nil
				return served
			}
		})
		if served {
			return s
		}
	}
	t.Fatal("no free port")
	return nil
}

// startCluster runs a Redis Cluster of three servers until the test ends, and
// returns its URL and the servers.
func startCluster(t *testing.T) (string, []*instance) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var servers []*instance
	for i := range 3 {
		s := launch(t, "--cluster-enabled", "yes", "--save", "", "--appendonly", "no", "--cluster-node-timeout", "30000")
		const slots = 16384
		if err := s.ClusterAddSlotsRange(ctx, i*slots/3, (i+1)*slots/3-1).Err(); err != nil {
			t.Fatal(err)
		}
		servers = append(servers, s)
	}
	for _, s := range servers[1:] {
		if err := s.ClusterMeet(ctx, "127.0.0.1", strconv.Itoa(servers[0].port)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range servers {
		eventually(t, "the cluster", func() bool {
			info, _ := s.ClusterInfo(ctx).Result()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return fmt.Sprintf("redis://%s,%s", servers[0].address, servers[1].address), servers
}

// TestClusterKeepsAPolicyTogether has the buckets of a policy on three servers.
func TestClusterKeepsAPolicyTogether(t *testing.T) {
	t.Parallel()
	url, servers := startCluster(t)
	const keys, burst = 12, 10
	for _, store := range []string{"redis", "redis-strict"} {
		o := options(t, "1/m", burst)
		o.Store = store
		config := RedisOptions{URL: url, Timeout: 2 * time.Second, PoolSize: 4, Prefix: store + ":"}
		l := build(t, newTestRegistry(t), map[string]Options{"api": o}, config).Limiter("api")
		var admitted, shared [keys]int // shared: decided by Redis or with its tokens; now and then an answer may come late
		for i := range keys {
			k := l.Key(0, []byte{byte(i)})
			for asked := 0; (shared[i] < 3*burst || admitted[i] < burst) && asked < 5000; asked++ {
				v := l.Take(&k, 1, clock.Mono())
				if v.Allowed {
					admitted[i]++
				}
				if v.source != fromFallback {
					shared[i]++
				}
				time.Sleep(time.Millisecond)
			}
		}
		for i := range keys {
			if most := burst + int(starter(newRate(&o), 1)); admitted[i] < burst || admitted[i] > most || shared[i] < 3*burst {
				t.Errorf("%s: key %d: %d admitted, want %d to %d; %d decisions were shared", store, i, admitted[i], burst, most, shared[i])
			}
		}
		for i, s := range servers {
			if names, err := s.Keys(t.Context(), store+":{limit:api:*").Result(); err != nil || len(names) == 0 {
				t.Errorf("%s: server %d has no bucket of %d: %v", store, i, keys, err)
			}
		}
	}
}

// TestSentinelsMoveALimitToTheReplica kills the server that has the buckets.
func TestSentinelsMoveALimitToTheReplica(t *testing.T) {
	t.Parallel()
	master := launch(t, "--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0")
	replica := launch(t, "--save", "", "--appendonly", "no", "--replicaof", "127.0.0.1", strconv.Itoa(master.port))
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor limits 127.0.0.1 %d 1\nsentinel down-after-milliseconds limits 1000\nsentinel failover-timeout limits 5000\n", master.port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := launch(t, file, "--sentinel")
	watcher := redis.NewSentinelClient(&redis.Options{Addr: sentinel.address})
	defer watcher.Close()
	eventually(t, "the replica to be known", func() bool {
		list, err := watcher.Replicas(t.Context(), "limits").Result()
		return err == nil && len(list) == 1 && strings.Contains(fmt.Sprint(list), "master-link-status:ok")
	})

	const burst = 20
	policies := map[string]Options{}
	for _, store := range []string{"redis", "redis-strict"} {
		o := options(t, "1/h", burst)
		o.Store = store
		policies[store] = o
	}
	config := RedisOptions{URL: "redis://" + sentinel.address + "?master_name=limits", Timeout: 2 * time.Second, PoolSize: 4, Prefix: "test:"}
	set := build(t, newTestRegistry(t), policies, config)
	admitted := map[string]int{}
	take := func(store string) Verdict {
		l := set.Limiter(store)
		k := l.Key(0, []byte("a"))
		v := l.Take(&k, 1, clock.Mono())
		if v.Allowed {
			admitted[store]++
		}
		return v
	}
	shared := map[string]source{"redis": fromLease, "redis-strict": fromStrict}
	for store, source := range shared {
		for admitted[store] < burst/2 {
			take(store)
			time.Sleep(time.Millisecond)
		}
		eventually(t, "a decision of Redis", func() bool { return take(store).source == source })
	}
	// A lease that is lost with its server is lost to all until time pays for
	// it. This one is given back, and what it owed is told; the replica has it.
	leased := set.Limiter("redis")
	eventually(t, "the lease to be given back", func() bool {
		k := leased.Key(0, []byte("a"))
		s := &leased.state.leases.shards[k.hash%leaseShards]
		s.Lock()
		defer s.Unlock()
		e := s.entry(s.index[k.hash])
		return e.tokens == 0 && e.owed == 0 && e.asked == 0 && !e.queued
	})
	eventually(t, "the replica to have both buckets", func() bool {
		n, err := master.Wait(t.Context(), 1, time.Second).Result()
		names, _ := replica.Keys(t.Context(), "test:{limit:*").Result()
		return err == nil && n == 1 && len(names) == 2
	})
	master.kill()
	eventually(t, "decisions to be made alone", func() bool {
		return take("redis-strict").source == fromFallback && take("redis").source == fromFallback
	})
	eventually(t, "the replica to take over", func() bool {
		role, err := replica.Do(t.Context(), "ROLE").Slice()
		return err == nil && len(role) > 0 && role[0] == "master"
	})
	for store, source := range shared {
		eventually(t, "decisions to be shared again", func() bool {
			time.Sleep(5 * time.Millisecond)
			return take(store).source == source
		})
		for asked := 0; asked < 3*burst || admitted[store] < burst && asked < 5000; asked++ {
			take(store)
			time.Sleep(time.Millisecond)
		}
		o := policies[store]
		most := burst + 1 // 1/h
		if store == "redis" {
			most += int(starter(newRate(&o), 1))
		}
		if n := admitted[store]; n < burst || n > most {
			t.Errorf("%s: %d admitted before, during and after the failover, want %d to %d", store, n, burst, most)
		}
	}
}
