package nfs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// workerName is argv[0] of a worker: what ps shows, and what it knows itself by.
const workerName = "csikit-nfs-worker"

// IsWorker reports whether this process is a worker of a driver: the program's main
// asks it before anything else, and calls [RunWorker].
func IsWorker() bool { return len(os.Args) > 0 && os.Args[0] == workerName }

// RunWorker does what the driver says until it says no more, and returns the exit
// code. What hangs in it ends with the process.
func RunWorker() int {
	err := serveWorker(os.Stdin, os.Stdout, tasks())
	if err != nil {
		fmt.Fprintln(os.Stderr, workerName+":", err)
		return 1
	}
	return 0
}

// A task is plain code that may hang. Its context ends when the driver does not want
// the answer any more.
type task func(ctx context.Context, t *taskCall) (out any, err error)

// taskCall is one run of a task.
type taskCall struct {
	root     string // of the share; "" before it is there
	in       json.RawMessage
	progress func(step string) // tells the driver that the task goes on
	step     func(at string)   // a fault point; nil: faultpoint.Reach
}

// decode reads what the task was given.
func (t *taskCall) decode(in any) error { return json.Unmarshal(t.in, in) }

// child is the worker's own side.
type child struct {
	tasks map[string]task

	out sync.Mutex
	enc *json.Encoder

	mu      sync.Mutex
	root    string
	source  string // what is mounted there
	running map[uint64]context.CancelFunc
}

func serveWorker(r io.Reader, w io.Writer, tasks map[string]task) error {
	c := &child{tasks: tasks, enc: json.NewEncoder(w), running: map[uint64]context.CancelFunc{}}
	if err := c.say(fromWorker{Hello: hello}); err != nil {
		return err
	}
	for dec := json.NewDecoder(r); ; {
		var m toWorker
		switch err := dec.Decode(&m); {
		case errors.Is(err, io.EOF):
			return nil // the driver has ended, or wants no more
		case err != nil:
			return err
		case m.Cancel:
			c.cancel(m.ID)
		default:
			c.start(m)
		}
	}
}

func (c *child) say(m fromWorker) error {
	c.out.Lock()
	defer c.out.Unlock()
	return c.enc.Encode(m)
}

func (c *child) cancel(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stop := c.running[id]; stop != nil {
		stop()
	}
}

func (c *child) start(m toWorker) {
	ctx, stop := context.WithCancel(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[m.ID] = stop
	t := &taskCall{root: c.root, in: m.In, progress: func(step string) {
		_ = c.say(fromWorker{ID: m.ID, Step: step}) // a driver that is gone is seen by the reader
	}}
	go func() {
		out, err := c.do(ctx, m.Op, t)
		c.mu.Lock()
		delete(c.running, m.ID)
		c.mu.Unlock()
		stop()
		_ = c.say(fromWorker{ID: m.ID, Out: out, Err: c.named(encodeError(err))})
	}()
}

// named calls the share by its name in a message, and not by where the worker has it.
func (c *child) named(e *wireError) *wireError {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e != nil && c.source != "" {
		e.Text = strings.ReplaceAll(e.Text, c.root+"/", strings.TrimSuffix(c.source, "/")+"/")
	}
	return e
}

func (c *child) do(ctx context.Context, op string, t *taskCall) (raw json.RawMessage, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: panic: %v", op, p)
		}
	}()
	if op == opShare {
		return nil, c.share(t)
	}
	f := c.tasks[op]
	if f == nil {
		return nil, fmt.Errorf("worker: no task %q", op)
	}
	out, err := f(ctx, t)
	if err != nil || out == nil {
		return nil, err
	}
	return json.Marshal(out)
}

// opShare comes first where tasks need the share.
const opShare = "share"

// share brings the share to where the tasks find it.
func (c *child) share(t *taskCall) error {
	var s shareTask
	if err := t.decode(&s); err != nil {
		return err
	}
	root, err := s.bring()
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.root, c.source = root, s.Source
	c.mu.Unlock()
	return nil
}
