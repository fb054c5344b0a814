package natstest

import (
	"fmt"
	"slices"

	"github.com/nats-io/nats-server/v2/server"
)

// WaitReady waits until the servers that run are connected to each other and, with JetStream, know
// each other and have caught up, and each replicated stream and consumer of theirs has a leader.
// Stopped servers are left aside, but most servers, and most replicas of each stream, must run.
// After a restart of one server it takes about three seconds, the pace of the heartbeats.
// After a restart of the whole cluster it takes five to ten seconds, the time of an election.
//
// WaitReady fails the test when that takes longer than a minute.
func (c *Cluster) WaitReady() {
	c.tb.Helper()
	var err error
	if !poll(clusterTimeout, func() bool { err = c.unready(); return err == nil }) {
		c.tb.Fatalf("natstest: the cluster was not ready after %v: %v", clusterTimeout, err)
	}
}

func (c *Cluster) ready() bool { return c.unready() == nil }

// unready returns what is missing for the cluster to be ready, or nil.
func (c *Cluster) unready() error {
	running := c.running()
	var members []string // of JetStream
	var leader *server.Server
	for _, es := range running {
		routed := map[string]bool{}
		rz, err := es.Routez(nil)
		if err != nil {
			return fmt.Errorf("routes of %s: %w", es.Name(), err)
		}
		for _, r := range rz.Routes {
			routed[r.RemoteID] = true
		}
		for _, peer := range running {
			if peer != es && !routed[peer.ID()] {
				return fmt.Errorf("%s has no route to %s", es.Name(), peer.Name())
			}
		}
		if !es.JetStreamEnabled() {
			continue
		}
		members = append(members, es.Name())
		if es.JetStreamIsLeader() {
			leader = es
		}
	}
	if len(members) == 0 {
		return nil
	}
	if leader == nil {
		return fmt.Errorf("JetStream has no leader with %d of %d servers running", len(running), len(c.servers))
	}
	known := leader.JetStreamClusterPeers()
	for _, name := range members {
		if !slices.Contains(known, name) {
			return fmt.Errorf("the leader %s does not know %s yet", leader.Name(), name)
		}
	}
	if group := leaderless(running); group != "" {
		return fmt.Errorf("the Raft group %s does not follow a leader yet", group)
	}
	for _, es := range running {
		if !es.JetStreamEnabled() {
			continue
		}
		if !es.JetStreamIsCurrent() {
			return fmt.Errorf("JetStream of %s is not current", es.Name())
		}
		if h := es.Healthz(nil); h.Status != "ok" {
			return fmt.Errorf("%s is not healthy: %s", es.Name(), h.Error)
		}
	}
	return nil
}

// leaderless returns a Raft group that has no leader, or a member that does not follow it yet; "" if
// there is none. Such a member counts as healthy with its server, having nothing to compare itself to.
func leaderless(running []*server.Server) string {
	leaders := map[string]string{}
	followed := map[string][]string{}
	for _, es := range running {
		for _, account := range accounts(es) {
			status := es.Raftz(&server.RaftzOptions{AccountFilter: account})
			if status == nil {
				continue
			}
			for group, info := range (*status)[account] {
				if info.LeaderSince != nil {
					leaders[group] = info.ID
				}
				followed[group] = append(followed[group], info.Leader)
			}
		}
	}
	for group, names := range followed {
		for _, name := range names {
			if name == "" || name != leaders[group] {
				return group
			}
		}
	}
	return ""
}

func accounts(es *server.Server) []string {
	az, err := es.Accountz(nil)
	if err != nil {
		return nil
	}
	return az.Accounts
}

func (c *Cluster) running() []*server.Server {
	var running []*server.Server
	for _, s := range c.servers {
		if es := s.Embedded(); es != nil && es.Running() {
			running = append(running, es)
		}
	}
	return running
}
