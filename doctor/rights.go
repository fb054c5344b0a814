package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// user is what the server tells a user of itself.
type user struct {
	Server struct {
		Time time.Time `json:"time"`
	} `json:"server"`
	Data struct {
		Permissions struct {
			Publish   subjects `json:"publish"`
			Subscribe subjects `json:"subscribe"`
		} `json:"permissions"`
	} `json:"data"`
}

// subjects are the right to publish or to subscribe. Without Allow all is allowed that is not denied. An entry may
// be for one queue group: "orders.> workers".
type subjects struct {
	Allow []string `json:"allow"`
	Deny  []string `json:"deny"`
}

// allow is the server's rule: where an entry for some group matches, groups go by such entries alone.
func (s subjects) allow(name, group string) bool {
	plain, grouped, mine := match(s.Allow, name, group)
	allowed := s.Allow == nil || plain
	if group != "" && grouped {
		allowed = mine
	}
	plain, _, mine = match(s.Deny, name, group)
	return allowed && !plain && !mine
}

// match tells whether an entry for all, for a group, and for this group matches.
func match(entries []string, name, group string) (plain, grouped, mine bool) {
	for _, entry := range entries {
		pattern, only, ok := strings.Cut(entry, " ")
		if subject.Covers(pattern, name) {
			plain = plain || !ok
			grouped = grouped || ok
			mine = mine || ok && group != "" && subject.Covers(only, group)
		}
	}
	return plain, grouped, mine
}

// askUser returns what the server tells of the user, or nil where the user may not ask.
func (x *examination) askUser(ctx context.Context) *user {
	answer, err := x.client.Request(ctx, "$SYS.REQ.USER.INFO", nil, 0)
	u := &user{}
	if err != nil || json.Unmarshal(answer.Data, u) != nil || u.Server.Time.IsZero() {
		return nil
	}
	return u
}

func (x *examination) rights() {
	for _, name := range x.wants.Publish {
		x.check("publish", name, func(ctx context.Context) Finding { return x.mayPublish(ctx, name) })
	}
	for _, name := range x.wants.Subscribe {
		x.check("subscribe", name, func(ctx context.Context) Finding { return x.maySubscribe(ctx, name) })
	}
}

// mayPublish finds out whether the user may publish to a subject.
//
// Where the lists do not say yes, the server is tried: it looks at the right to publish, and next at the reply
// subject. One that begins with "_R_." is its own, and is refused before the message goes anywhere, so that one
// refusal or the other is all that comes of it. The lists go first because the server logs what it refuses; the
// server has the last word because an account's mappings may change which subject the right is needed to.
func (x *examination) mayPublish(ctx context.Context, name string) Finding {
	if fault := subject.Fault(name, true); fault != "" {
		return failed(errors.New(fault), "mend the subject")
	}
	if x.user != nil && x.user.Data.Permissions.Publish.allow(name, "") {
		return passed("")
	}
	err := x.client.Conn().PublishRequest(name, "_R_.doctor", nil)
	if err == nil {
		err = x.client.Flush(ctx)
	}
	return right("publish to "+name, err)
}

// maySubscribe finds out whether the user may subscribe to a subject. Where the lists do not say yes, that is by a
// subscription, but not in a queue group: it would take messages from the others.
func (x *examination) maySubscribe(ctx context.Context, target string) Finding {
	name, group, _ := strings.Cut(target, " ")
	fault := subject.Fault(name, true)
	switch {
	case fault != "":
		return failed(errors.New(fault), "mend the subject")
	case x.user != nil && x.user.Data.Permissions.Subscribe.allow(name, group):
		return passed("")
	case group != "" && x.user != nil:
		return right("subscribe to "+target, nats.ErrPermission)
	case group != "":
		return unknown("who joins the group takes messages from it, and the user may not ask $SYS.REQ.USER.INFO")
	}
	s, err := x.client.Subscribe(ctx, name, func(*nats.Message) error { return nil })
	if err == nil {
		err = s.Unsubscribe()
	}
	return right("subscribe to "+name, err)
}

func right(to string, err error) Finding {
	if err != nil && !errors.Is(err, nats.ErrPermission) {
		return unknown(oneLine(err))
	}
	return ended(err, "have the user's permissions allow it to "+to)
}
