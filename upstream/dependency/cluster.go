package dependency

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// cluster is a session with all masters of a Redis Cluster.
type cluster struct {
	sockets *sockets
	client  *redis.ClusterClient
	options *Options
}

// clusterShares is into how many parts the timeout is divided, so that one
// node that hangs does not keep the probe from the others.
const clusterShares = 3

func openCluster(o *Options, c *redis.ClusterOptions) *cluster {
	share := o.Timeout / clusterShares
	s := newSockets()
	return &cluster{options: o, sockets: s, client: redis.NewClusterClient(&redis.ClusterOptions{
		Addrs:      c.Addrs,
		ClientName: c.ClientName,
		Protocol:   c.Protocol,
		Username:   c.Username,
		Password:   c.Password,
		TLSConfig:  c.TLSConfig,
		Dialer:     s.dialer(c.TLSConfig),

		ContextTimeoutEnabled: true,
		MaxRedirects:          -1,
		MaxRetries:            -1,
		DialerRetries:         1,
		DialTimeout:           share,
		ReadTimeout:           share,
		WriteTimeout:          share,
		PoolTimeout:           share,
		PoolSize:              poolSize,
		PipelinePoolSize:      -1,
		ConnMaxIdleTime:       -1,
		DisableIdentity:       true,

		MaintNotificationsConfig: disabledNotifications(),
	})}
}

func (c *cluster) ask(ctx context.Context) error {
	defer c.sockets.until(ctx)()
	var masters atomic.Int64
	err := c.client.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		masters.Add(1)
		err := askRedis(ctx, node, c.options)
		if err == nil {
			err = askClusterState(ctx, node)
		}
		if err != nil {
			return fmt.Errorf("node %s: %w", node.Options().Addr, err)
		}
		return nil
	})
	if err == nil && masters.Load() == 0 {
		return errors.New("the cluster has no masters")
	}
	return err
}

// askClusterState asks a node whether the cluster serves requests: with slots
// uncovered or a majority lost it still answers PING.
func askClusterState(ctx context.Context, node *redis.Client) error {
	info, err := node.ClusterInfo(ctx).Result()
	if err != nil {
		return err
	}
	for line := range strings.Lines(info) {
		if state, found := strings.CutPrefix(strings.TrimSpace(line), "cluster_state:"); found {
			if state != "ok" {
				return fmt.Errorf("the cluster's state is %q", state)
			}
			return nil
		}
	}
	return errors.New("CLUSTER INFO tells no state")
}

func (c *cluster) close() {
	c.client.Close()
	c.sockets.shut()
}
