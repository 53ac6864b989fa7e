package command

import (
	"fmt"
	"sync"
)

// output keeps the beginning and the end of what a tool writes, and counts it.
type output struct {
	max   int
	mu    sync.Mutex
	head  []byte
	tail  []byte // may grow to twice its share, so that it is moved seldom
	total int64
}

// Write never fails: a tool must not end by SIGPIPE because it talks much.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(b)
	o.total += int64(n)
	room := min(o.headMax()-len(o.head), n)
	o.head = append(o.head, b[:room]...)
	b = b[room:]
	share := o.max - o.headMax()
	if len(b) > share {
		o.tail, b = o.tail[:0], b[len(b)-share:]
	}
	if o.tail = append(o.tail, b...); len(o.tail) > 2*share {
		o.tail = append(o.tail[:0], o.tail[len(o.tail)-share:]...)
	}
	return n, nil
}

func (o *output) headMax() int { return (o.max + 1) / 2 }

// written is how much came so far.
func (o *output) written() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.total
}

// bytes is a copy of what is kept; a line of its own stands for what is not.
func (o *output) bytes() (b []byte, truncated bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	tail := o.tail[max(0, len(o.tail)-(o.max-o.headMax())):]
	left := o.total - int64(len(o.head)) - int64(len(tail))
	b = append(b, o.head...)
	if left > 0 {
		b = fmt.Appendf(b, "\n[... %d bytes left out ...]\n", left)
	}
	return append(b, tail...), left > 0
}
