package model

import (
	"fmt"
	"strings"
	"time"

	"pgregory.net/rapid"
)

// action is one step of a random program: a call, or something that happens to
// the driver.
type action struct {
	kind string        // of makers; or cut, kill, shutdown
	gap  time.Duration // since the step before
	call
}

// call says what is asked for, and what becomes of it.
type call struct {
	object, other, variant, secret, client int

	deadline time.Duration // 0: none
	cancel   time.Duration // after which the client goes away; 0: it does not
	loses    bool          // the connection breaks when the driver has answered
	plan     plan
}

// plan is what the backend does in the operation that a call begins.
type plan struct {
	where string        // lookup, before, midway, after
	skip  int           // so many such places come first
	slow  time.Duration // how long it takes there
	deaf  bool          // it does not notice that it is cancelled
	alive bool          // it shows progress meanwhile
	fails string        // "", plain, unavailable, failed, nospace, panic
}

const (
	stall = 30 * time.Second
	grace = 10 * time.Second // of package idempotency
	wait  = 10 * time.Second
	drain = 5 * time.Second
)

var kinds = weighted(map[string]int{
	"create": 8, "restore": 4, "clone": 4, "delete": 8, "expand": 5, "modify": 4, "attach": 5, "detach": 4,
	"snapshot": 6, "delsnapshot": 5, "group": 3, "delgroup": 3,
	"stage": 5, "unstage": 5, "publish": 7, "unpublish": 5, "nodeexpand": 2,
	"list": 1, "get": 1, "listsnapshots": 1, "getsnapshot": 1, "getgroup": 1, "stats": 1,
	"cut": 2, "kill": 2, "shutdown": 2,
})

// lives are the calls that make a volume ready for a pod.
var lives = []string{"create", "attach", "stage", "publish"}

func weighted(weights map[string]int) []string {
	var list []string
	for _, k := range sorted(weights) {
		for range weights[k] {
			list = append(list, k)
		}
	}
	return list
}

var (
	gaps       = []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond, time.Second, 4 * time.Second}
	deadlines  = []time.Duration{0, 0, 0, 3 * time.Millisecond, 600 * time.Millisecond, 2 * time.Second, 15 * time.Second, time.Minute}
	cancels    = []time.Duration{0, 0, 0, 0, 0, 0, 2 * time.Millisecond, 300 * time.Millisecond, 5 * time.Second}
	slownesses = []time.Duration{0, 0, 10 * time.Millisecond, 300 * time.Millisecond, 3 * time.Second, 8 * time.Second, 25 * time.Second, 70 * time.Second}
)

var plans = rapid.Custom(func(t *rapid.T) plan {
	p := plan{
		where: rapid.SampledFrom([]string{"before", "lookup", "midway", "after"}).Draw(t, "where"),
		slow:  rapid.SampledFrom(slownesses).Draw(t, "slow"),
		skip:  rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(t, "skip"),
	}
	if p.slow >= time.Second {
		p.deaf = rapid.Bool().Draw(t, "deaf")
		p.alive = rapid.Bool().Draw(t, "alive")
	}
	fails := []string{"", "", "", "plain", "unavailable", "panic"}
	if p.where == "lookup" || p.where == "before" {
		fails = append(fails, "failed", "nospace")
	}
	p.fails = rapid.SampledFrom(fails).Draw(t, "fails")
	return p
})

var actions = rapid.Custom(func(t *rapid.T) action {
	a := action{
		kind: rapid.SampledFrom(kinds).Draw(t, "kind"),
		gap:  rapid.SampledFrom(gaps).Draw(t, "gap"),
	}
	a.client = rapid.IntRange(0, clients-1).Draw(t, "client")
	if a.happens() {
		return a
	}
	a.object = rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}).Draw(t, "object")
	a.other = rapid.SampledFrom([]int{0, 0, 1}).Draw(t, "other")
	a.variant = rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2, 3}).Draw(t, "variant")
	a.secret = rapid.IntRange(0, 1).Draw(t, "secret")
	a.deadline = rapid.SampledFrom(deadlines).Draw(t, "deadline")
	a.cancel = rapid.SampledFrom(cancels).Draw(t, "cancel")
	a.loses = rapid.SampledFrom([]bool{false, false, false, false, false, false, false, true}).Draw(t, "loses")
	a.plan = plans.Draw(t, "plan")
	return a
})

// steps are an action and its repetitions: a CO that has no answer, or an answer
// that it does not like, asks again.
var steps = rapid.Custom(func(t *rapid.T) []action {
	a := actions.Draw(t, "action")
	list := []action{a}
	if a.happens() {
		return list
	}
	for range rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2}).Draw(t, "again") {
		b := a
		again := actions.Draw(t, "repetition")
		b.gap, b.call = again.gap, again.call
		b.object, b.other = a.object, a.other
		if rapid.IntRange(0, 3).Draw(t, "changed") > 0 { // else the same name with other arguments
			b.variant = a.variant
		}
		list = append(list, b)
	}
	return list
})

// program is a random run.
type program []action

// GoString is how rapid prints it.
func (p program) GoString() string {
	var b strings.Builder
	for i := range p {
		fmt.Fprintf(&b, "\n  +%v %s object %d, other %d, variant %d; %v", p[i].gap, p[i].kind, p[i].object, p[i].other, p[i].variant, &p[i])
	}
	return b.String()
}

var programs = rapid.Custom(func(t *rapid.T) program {
	var list program
	for v := range volumeNames {
		for _, kind := range lives[:rapid.SampledFrom([]int{0, 1, 1, 2, 3, 4}).Draw(t, "life")] {
			list = append(list, action{kind: kind, gap: 10 * time.Millisecond, call: call{object: v, variant: variantOf(kind), client: v}})
		}
	}
	for range rapid.IntRange(1, 25).Draw(t, "length") {
		list = append(list, steps.Draw(t, "steps")...)
	}
	// No two steps at one instant: what then happens first is luck.
	for i := range list {
		list[i].gap += time.Duration(i+1) * 100 * time.Nanosecond
	}
	return list
})

// variantOf attaches so that other nodes may attach, too.
func variantOf(kind string) int {
	if kind == "attach" {
		return 1
	}
	return 0
}

// happens tells whether it is no call.
func (a *action) happens() bool { return a.kind == "cut" || a.kind == "kill" || a.kind == "shutdown" }

func (p *plan) String() string {
	if p.slow == 0 && p.fails == "" {
		return ""
	}
	s := fmt.Sprintf("; %s %d: ", p.where, p.skip)
	if p.slow > 0 {
		s += fmt.Sprintf("takes %v ", p.slow)
	}
	if p.deaf {
		s += "deaf "
	}
	if p.alive {
		s += "with progress "
	}
	if p.fails != "" {
		s += "fails " + p.fails
	}
	return s
}

func (a *action) String() string {
	s := fmt.Sprintf("client %d", a.client)
	if a.deadline > 0 {
		s += fmt.Sprintf(", deadline %v", a.deadline)
	}
	if a.cancel > 0 {
		s += fmt.Sprintf(", gone after %v", a.cancel)
	}
	if a.loses {
		s += ", answer lost"
	}
	return s + a.plan.String()
}
