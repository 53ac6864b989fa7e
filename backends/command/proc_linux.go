package command

import (
	"errors"
	"maps"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// awaitZombie returns when the child has ended, without reaping it; false when
// that cannot be waited for.
func awaitZombie(pid int) bool {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err == nil
		}
	}
}

// member is one process of a group as /proc shows it.
type member struct {
	pid   int
	state byte
	start string // ticks since boot: with the pid it names the process
	cpu   string // utime and stime
}

// group lists the processes of a group. /proc has no index by group; a look
// costs some 10 µs for each process of the machine, and is taken seldom.
func group(pgid int) []member {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil
	}
	var ms []member
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + n + "/stat")
		if err != nil {
			continue // it has ended
		}
		if m, pgrp, ok := parseStat(string(b)); ok && pgrp == pgid {
			m.pid = pid
			ms = append(ms, m)
		}
	}
	return ms
}

// parseStat reads /proc/PID/stat; the name in it may hold anything, so that
// fields count from the last parenthesis.
func parseStat(s string) (m member, pgrp int, ok bool) {
	i := strings.LastIndexByte(s, ')')
	if i < 0 {
		return m, 0, false
	}
	f := strings.Fields(s[i+1:])
	if len(f) < 20 {
		return m, 0, false
	}
	pgrp, err := strconv.Atoi(f[2])
	return member{state: f[0][0], cpu: f[11] + " " + f[12], start: f[19]}, pgrp, err == nil
}

// groupAlive tells whether anybody of the group is more than a zombie.
func groupAlive(pgid int) bool {
	for _, m := range group(pgid) {
		if m.state != 'Z' && m.state != 'X' {
			return true
		}
	}
	return false
}

// activity is what each process of a group has done so far. A process that came
// or went is a difference, too.
func activity(pgid int) map[string]string {
	a := map[string]string{}
	for _, m := range group(pgid) {
		pid := strconv.Itoa(m.pid)
		// Not readable when the tool changed its user: CPU time must do.
		io, _ := os.ReadFile("/proc/" + pid + "/io")
		a[pid+" "+m.start] = m.cpu + " " + string(io)
	}
	return a
}

// progress compares a group with itself.
type progress struct {
	p       *process
	written int64
	last    map[string]string
}

// made tells whether anything has changed since the call before.
func (g *progress) made() bool {
	w, a := g.p.stdout.written()+g.p.stderr.written(), activity(g.p.pid())
	same := g.last != nil && w == g.written && maps.Equal(a, g.last)
	g.written, g.last = w, a
	return !same
}
