package doctor

import (
	"cmp"
	"context"
	"iter"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// Run looks at all that cfg says and w wants, and yields what it finds as it goes. It ends when all is said, when
// the loop is left, or soon after the end of ctx: what was not looked at by then is not checked. Each step is
// bounded as the client's is, by dial_timeout or request_timeout. It connects to each server once, leaves nothing
// behind, and neither changes nor keeps cfg.
func Run(ctx context.Context, cfg *nats.Config, w Wants) iter.Seq[Finding] {
	return func(yield func(Finding) bool) {
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, leave := context.WithCancel(ctx)
		defer leave()
		left := false
		x := examination{ctx: ctx, wants: w, tell: func(f Finding) {
			if !left && !yield(f) {
				left = true
				leave()
			}
		}}
		x.run(cfg)
	}
}

// examination is one run.
type examination struct {
	ctx    context.Context
	cfg    nats.Config // with the defaults that matter here
	wants  Wants
	tell   func(Finding)
	client *nats.Client
	user   *user  // nil when the server does not tell
	broken string // why nothing more can be looked at
}

func (x *examination) run(cfg *nats.Config) {
	if !x.check("configuration", "", func(context.Context) Finding { return ended(cfg.Validate(), "mend the keys that are named") }) {
		x.broken = "the configuration cannot be used"
		for _, step := range append([]string{"consul"}, steps...) {
			x.check(step, "", nil)
		}
	} else {
		x.configure(*cfg)
		if x.client = x.connect(x.servers()); x.client != nil {
			defer x.end(x.client)
			x.user = x.askUser(x.ctx)
		} else {
			x.broken = "no server lets the client in"
		}
	}
	x.rights()
	x.jetStream()
}

func (x *examination) configure(cfg nats.Config) {
	defaults := nats.DefaultConfig()
	if len(cfg.URLs) == 0 {
		cfg.URLs = defaults.URLs
	}
	cfg.ServiceName = cmp.Or(cfg.ServiceName, defaults.ServiceName)
	cfg.GRPCPort = cmp.Or(cfg.GRPCPort, defaults.GRPCPort)
	cfg.DialTimeout = cmp.Or(cfg.DialTimeout, defaults.DialTimeout)
	x.cfg = cfg
}

// check makes a check, unless what it stands on is broken, and tells whether it passed.
func (x *examination) check(name, target string, look func(context.Context) Finding) bool {
	f := unknown(x.broken)
	if x.broken == "" {
		f = x.look(look)
	}
	f.Check, f.Target = name, target
	x.tell(f)
	return f.Status == Passed
}

// look makes a check within the time there is.
func (x *examination) look(look func(context.Context) Finding) Finding {
	f, begin := Finding{}, time.Now()
	if x.ctx.Err() == nil {
		f = look(x.ctx)
		f.Took = time.Since(begin)
	}
	if x.ctx.Err() != nil && f.Status != Passed { // it was cut short
		return unknown("cut short: " + context.Cause(x.ctx).Error())
	}
	return f
}

// end closes a connection on which nothing goes on any more.
func (x *examination) end(c *nats.Client) {
	ctx, cancel := context.WithTimeout(x.ctx, time.Second)
	defer cancel()
	_ = c.Shutdown(ctx) // there is nothing to lose
}
