package netns

import (
	"context"
	"errors"
	"testing"
)

// guarded lets alice begin what she likes, and nobody begin anything with her.
const guarded = `
kind: chain
name: from-alice
---
kind: rule
name: seen
chain: from-alice
position: 10
match: {connection: new}
action: accept
---
kind: chain
name: to-alice
---
kind: rule
name: answers
chain: to-alice
position: 10
match: {connection: return}
action: accept
---
kind: rule
name: arp
chain: to-alice
position: 20
match: {eth_type: 0x0806}
action: accept
---
kind: rule
name: the-rest
chain: to-alice
position: 30
action: drop
---
kind: port
name: alice
bridge: blue
mac: 02:00:00:00:01:10
addresses: [10.0.1.10, "fd00:1::10"]
inbound_filter: from-alice
outbound_filter: to-alice
`

func TestReturnTraffic(t *testing.T) {
	t.Parallel()
	l := twoSubnets(t)
	applyEverywhere(t, l, guarded)
	alice, bob := space(t, l, "alice"), space(t, l, "bob")
	if out, err := command(bob, "ping", "-n", "-c", "1", "-W", "1", "10.0.1.10"); err == nil {
		t.Errorf("bob reaches alice:\n%s", out)
	}
	ping(t, alice, "10.0.2.10")
	stream(t, alice, bob, "10.0.2.10:5001")
	if out, err := command(bob, "ping", "-n", "-c", "1", "-W", "1", "10.0.1.10"); err == nil {
		t.Errorf("bob reaches alice after she has reached him:\n%s", out)
	}
	eventually(t, "the rule has hits", func(context.Context) error { // once the counters of the answers' flows have been read
		if hits(t, l, "answers") == 0 {
			return errors.New("it has none")
		}
		return nil
	})
	if n := dropped(t, l, "filter_drop"); n == 0 {
		t.Error("nothing is counted as dropped")
	}
}
