package ratelimit

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"gateway/internal/redisclient"
)

const (
	heartbeat     = time.Second
	nodeLife      = 4 * time.Second        // without a heartbeat a gateway counts no more
	nodeMemory    = 5                      // heartbeats: the largest number of nodes seen in them counts
	breakerPause  = 50 * time.Millisecond  // between two looks whether it is back
	backgroundMin = 100 * time.Millisecond // least deadline of calls that nobody waits for
)

// Redis is the connection to the Redis that gateways share, and what is known
// about it: whether it answers, and how many gateways there are.
type Redis struct {
	client  redis.UniversalClient
	prefix  string
	timeout time.Duration
	breaker *redisclient.Breaker
	node    string
	nodes   atomic.Int64
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// NewRedis makes a client; Redis need not be there. Errors hold nothing of the
// URL, which may have a password.
func NewRedis(o RedisOptions, log *slog.Logger) (*Redis, error) {
	client, err := redisclient.New(o, max(o.Timeout, backgroundMin))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &Redis{
		client:  client,
		prefix:  o.Prefix,
		timeout: o.Timeout,
		node:    rand.Text(),
		stop:    stop,
	}
	r.breaker = redisclient.NewBreaker(func(open bool) {
		if open {
			log.Warn("Redis does not answer; limits that it keeps are local now")
		} else {
			log.Info("Redis answers again; limits are shared")
		}
	})
	r.nodes.Store(1)
	r.done.Go(func() { r.beat(ctx) })
	return r, nil
}

// Nodes is the number of gateways that share this Redis, 1 while unknown.
func (r *Redis) Nodes() int64 { return r.nodes.Load() }

// Close ends the client. Decisions that still need it are made locally.
func (r *Redis) Close() {
	r.stop()
	r.done.Wait()
	_ = r.client.Close()
}

// beat tells Redis about this gateway and learns about the others. While
// nobody else asks Redis, it finds out whether it is back.
func (r *Redis) beat(ctx context.Context) {
	defer r.leave()
	var seen [nodeMemory]int64
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := 0; ; {
		call, cancel := context.WithTimeout(ctx, max(r.timeout, backgroundMin))
		n, err := heartbeatScript.Run(call, r.client, []string{r.prefix + "{nodes}"}, r.node, nodeLife.Milliseconds()).Int64()
		cancel()
		if ctx.Err() != nil {
			return
		}
		r.breaker.Report(err == nil)
		if err == nil {
			// After Redis was away the others' lives are over until they have
			// reported again: a smaller number is believed late.
			seen[i%nodeMemory] = n
			i++
			r.nodes.Store(max(1, slices.Max(seen[:])))
		}
		pause := heartbeat
		if r.breaker.IsOpen() {
			pause = breakerPause
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-r.breaker.Opened():
		}
	}
}

// leave tells Redis that this gateway ends.
func (r *Redis) leave() {
	if r.breaker.IsOpen() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), backgroundMin)
	defer cancel()
	_ = r.client.ZRem(ctx, r.prefix+"{nodes}", r.node).Err()
}

// key is the name of a bucket in Redis. The hash tag is unique to the bucket:
// buckets spread over a cluster, and each is whole on one of its servers.
func (r *Redis) key(policy string, k *Key) string {
	return r.prefix + "{limit:" + policy + ":" + hex.EncodeToString(k.name[:]) + "}"
}
