//go:build !linux

package command

// awaitZombie cannot wait without reaping here.
func awaitZombie(int) bool { return false }

// groupAlive: only the child itself is known here.
func groupAlive(int) bool { return false }

// progress is output alone here.
type progress struct {
	p       *process
	written int64
}

func (g *progress) made() bool {
	w := g.p.stdout.written() + g.p.stderr.written()
	same := w == g.written
	g.written = w
	return !same
}
