package suite

import (
	"bufio"
	"bytes"
	"os"
	"strconv"
	"strings"
)

// usage is what a process has that it can run out of.
type usage struct {
	name string
	n    int64
	life int64 // of it, with each volume that comes and goes, is a leak
}

// usageOf a process, by what /proc tells. What it does not tell is 0.
func usageOf(pid int) []usage {
	proc := "/proc/" + strconv.Itoa(pid) + "/"
	files, _ := os.ReadDir(proc + "fd")    // it is gone
	b, err := os.ReadFile(proc + "status") // as above
	var threads, memory int64              // memory of its own, in KiB
	for s := bufio.NewScanner(bytes.NewReader(b)); err == nil && s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), ":")
		n, nerr := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
		switch {
		case nerr != nil:
		case key == "Threads":
			threads = n
		case key == "RssAnon":
			memory = n
		}
	}
	return []usage{
		{"descriptors", int64(len(files)), 1},
		{"processes", int64(len(children(pid))), 1},
		{"threads", threads, 1},
		{"MiB of memory", memory >> 10, 8}, // with less, a collector of garbage may not have run yet
	}
}

// rising says of what there is more than before, by what a leak would be.
func rising(before, now []usage, lives int64) (more []string) {
	for i := range now {
		if now[i].n >= before[i].n+lives*now[i].life {
			more = append(more, now[i].name)
		}
	}
	return more
}

// leaks takes volumes through their lives, some at a time. A leak rises every time;
// what rises once, or twice, is something that is kept for the next volume.
func leaks(t *T) {
	life := func() {
		v, target := use(t)
		v.Unpublish(target)
		v.FromNode()
		v.Delete()
	}
	life() // what is opened once stays
	pid := t.Config().PID
	const lives, rounds = 4, 3
	start := usageOf(pid)
	var suspects []string
	for round := range rounds {
		before := usageOf(pid)
		for range lives {
			life()
		}
		more := settled(t, pid, before, lives)
		if round > 0 {
			more = both(suspects, more)
		}
		if suspects = more; len(suspects) == 0 {
			return
		}
	}
	for i, now := range usageOf(pid) {
		for _, s := range suspects {
			if s == now.name {
				t.Failf("NU-02 NB-02 PR-12", "the driver had %d %s, and after %d volumes that came and went it has %d", start[i].n, now.name, lives*rounds, now.n)
			}
		}
	}
}

// settled gives what is still above before after a second: a driver may clean up when
// it has answered.
func settled(t *T, pid int, before []usage, lives int64) (more []string) {
	for range 40 {
		if more = rising(before, usageOf(pid), lives); len(more) == 0 {
			return nil
		}
		pause(t)
	}
	return more
}

func both(a, b []string) (list []string) {
	for _, s := range a {
		if contains(b, s) {
			list = append(list, s)
		}
	}
	return list
}

func contains(list []string, s string) bool { return count(list, s) > 0 }

// closedAgain says when many things that came and went have left something open.
func closedAgain(t *T, what string, n int, before []usage) {
	if t.Config().PID == 0 || n < 100 { // what is kept for the next ones may be as many
		return
	}
	more := settled(t, t.Config().PID, before, int64(n)/2)
	for i, now := range usageOf(t.Config().PID) {
		if contains(more, now.name) && now.name != "MiB of memory" {
			t.Failf("PR-12", "the driver had %d %s, and after %d %s that came and went it has %d", before[i].n, now.name, n, what, now.n)
		}
	}
}

// usedBefore is for closedAgain.
func usedBefore(t *T) []usage {
	if t.Config().PID == 0 {
		return nil
	}
	return usageOf(t.Config().PID)
}
