package nfs

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// worker is one process.
type worker struct {
	ws   *workers
	lane lane
	cmd  *exec.Cmd
	in   *os.File // its standard input
	out  *os.File // its standard output
	slot chan struct{}

	first    sync.Once
	isReady  chan struct{}
	readyErr error // after isReady
	over     chan struct{}
	gone     chan struct{} // the process has ended

	mu     sync.Mutex
	cause  error // why it was killed
	reaped bool
	next   uint64
	calls  map[uint64]*farCall
	idle   *time.Timer
}

// farCall is a task in a worker.
type farCall struct {
	op    string
	done  chan fromWorker // one, or closed when the worker has ended
	since time.Time       // of its last progress
	timer *time.Timer
}

// begin starts a process; it runs this program again, whose main calls RunWorker.
func (ws *workers) begin(l lane) (*worker, error) {
	exe, err := program()
	if err != nil {
		return nil, err
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirIn.Close(), in.Close())
	}
	log, theirLog, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirIn.Close(), in.Close(), out.Close(), theirOut.Close())
	}
	cmd := exec.Command(exe)                          //nolint:noctx // it outlives the call that started it
	cmd.Args = []string{workerName, l.server, l.name} // for ps
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirIn, theirOut, theirLog
	cmd.SysProcAttr = workerAttr(l.within)
	err = cmd.Start()
	err = errors.Join(err, theirIn.Close(), theirOut.Close(), theirLog.Close())
	if err != nil {
		return nil, errors.Join(err, in.Close(), out.Close(), log.Close())
	}
	w := &worker{
		ws: ws, lane: l, cmd: cmd, in: in, out: out, slot: make(chan struct{}, maxCalls),
		isReady: make(chan struct{}), over: make(chan struct{}), gone: make(chan struct{}), calls: map[uint64]*farCall{},
	}
	w.mu.Lock()
	w.idle = time.AfterFunc(l.idle(ws.times), w.rest)
	w.mu.Unlock()
	go w.complain(log)
	go w.listen()
	return w, nil
}

// complain logs what the worker writes to its standard error: the trace of a crash.
func (w *worker) complain(log *os.File) {
	lines := bufio.NewScanner(io.LimitReader(log, 64<<10))
	for lines.Scan() {
		w.ws.log.Warn("worker of the NFS backend", "server", w.lane.server, "pid", w.cmd.Process.Pid, "says", lines.Text())
	}
	_ = log.Close() // it was read
}

// listen hands the answers on.
func (w *worker) listen() {
	dec := json.NewDecoder(w.out)
	for {
		var m fromWorker
		if err := dec.Decode(&m); err != nil {
			w.kill(fmt.Errorf("its worker has ended (%w)", err))
			return
		}
		w.hear(m)
	}
}

func (w *worker) hear(m fromWorker) {
	w.mu.Lock()
	c := w.calls[m.ID]
	switch {
	case m.Hello != 0:
		w.mu.Unlock()
		if m.Hello != hello {
			w.kill(fmt.Errorf("the worker is another program (version %d)", m.Hello))
		}
		return
	case c == nil:
	case m.Step != "":
		c.since = time.Now()
	default:
		delete(w.calls, m.ID)
		c.timer.Stop()
		c.done <- m
	}
	if len(w.calls) == 0 {
		w.idle.Reset(w.lane.idle(w.ws.times))
	}
	w.mu.Unlock()
}

// rest ends a worker that has nothing to do. Who has it already finds it ended, and
// takes another one.
func (w *worker) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.calls) == 0 {
		w.end(errIdle)
	}
}

var errIdle = errors.New("the worker had nothing to do and was ended")

// ready brings the share to the worker, once.
func (w *worker) ready(ctx context.Context) error {
	if w.lane.share == "" {
		return nil
	}
	w.first.Do(func() {
		go func() {
			defer close(w.isReady)
			if _, w.readyErr = w.do(context.Background(), opShare, json.RawMessage(w.lane.share)); w.readyErr != nil {
				w.kill(w.readyErr)
			}
		}()
	})
	select {
	case <-w.isReady:
		return w.readyErr
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// do runs a task and waits for its end, the worker's, or ctx's.
func (w *worker) do(ctx context.Context, op string, in json.RawMessage) (json.RawMessage, error) {
	select {
	case w.slot <- struct{}{}:
		defer func() { <-w.slot }()
	case <-w.over:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	id, c, err := w.send(op, in)
	if err != nil {
		return nil, err
	}
	for wanted := ctx.Done(); ; {
		select {
		case m, answered := <-c.done:
			if !answered {
				w.parted(op)
				return nil, w.why(op)
			}
			return m.Out, m.Err.decode()
		case <-wanted:
			// Its timer stays: a task that hangs ends its worker also when nobody waits.
			_ = w.write(toWorker{ID: id, Cancel: true})
			if op != opMount {
				return nil, context.Cause(ctx)
			}
			// The kernel is not to be stopped: the mount would come to be when its path
			// is believed to be free.
			wanted = nil
		}
	}
}

// parted waits until a worker that was killed mounts nothing any more.
func (w *worker) parted(op string) {
	if op != opMount {
		return
	}
	select {
	case <-w.gone:
	case <-time.After(w.ws.times.kill):
	}
}

func (w *worker) send(op string, in json.RawMessage) (uint64, *farCall, error) {
	w.mu.Lock()
	if w.cause != nil {
		w.mu.Unlock()
		return 0, nil, w.why(op)
	}
	w.next++
	id, c := w.next, &farCall{op: op, done: make(chan fromWorker, 1), since: time.Now()}
	w.calls[id] = c
	w.idle.Stop()
	c.timer = time.AfterFunc(w.ws.times.ask, func() { w.late(id, c) })
	w.mu.Unlock()
	if err := w.write(toWorker{ID: id, Op: op, In: in}); err != nil {
		w.kill(fmt.Errorf("its worker has ended (%w)", err))
	}
	return id, c, nil
}

func (w *worker) write(m toWorker) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	// One write: those of several goroutines do not mix. A worker reads at once, or is dead.
	_, err = w.in.Write(append(b, '\n'))
	return err
}

// late asks the server when a task makes no progress, and ends the worker when the
// server does not answer either, or when the time is over.
func (w *worker) late(id uint64, c *farCall) {
	w.mu.Lock()
	if w.calls[id] != c {
		w.mu.Unlock()
		return
	}
	silent := time.Since(c.since)
	w.mu.Unlock()
	limit := w.ws.times.limit(c.op)
	switch {
	case silent < w.ws.times.ask:
	case silent >= limit:
		w.expire(c, fmt.Errorf("%s has made no progress for %s", c.op, silent.Round(time.Millisecond)))
		return
	default:
		if err := w.ws.breakers.ask(w.lane.server); err != nil {
			w.expire(c, fmt.Errorf("%s has made no progress for %s, and the server does not answer: %w", c.op, silent.Round(time.Millisecond), err))
			return
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calls[id] == c {
		c.timer.Reset(min(w.ws.times.ask, max(limit-time.Since(c.since), time.Millisecond)))
	}
}

func (w *worker) expire(c *farCall, why error) {
	w.ws.breakers.fail(w.lane.server, why)
	w.ws.log.Warn("NFS server does not answer", "server", w.lane.server, "task", c.op, "pid", w.cmd.Process.Pid, "err", why)
	w.kill(why)
}

// why says what became of a task whose worker has ended.
func (w *worker) why(op string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lane.server == "" {
		return unavailable("%s: %w", op, w.cause)
	}
	return unavailable("%s: server %s: %w", op, w.lane.server, w.cause)
}

// kill ends the process and all of its calls. What is killed in the middle of a call
// to the kernel may take a while to end.
func (w *worker) kill(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end(cause)
}

// end is kill under the lock.
func (w *worker) end(cause error) {
	if w.cause != nil {
		return
	}
	w.cause = cause
	w.idle.Stop()
	for id, c := range w.calls {
		c.timer.Stop()
		delete(w.calls, id)
		close(c.done)
	}
	w.killGroup()
	_, _ = w.in.Close(), w.out.Close()
	close(w.over)
	go w.ws.forget(w)
}

// killGroup ends a worker with what it has started (mount.nfs), unless it has ended
// and been reaped: its number may be somebody else's then.
func (w *worker) killGroup() {
	if !w.reaped {
		_ = syscall.Kill(-w.cmd.Process.Pid, syscall.SIGKILL) // it may just have ended
	}
}

func (w *worker) ended() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cause != nil
}

// await reaps the process.
func (w *worker) await() {
	go func() {
		_ = w.cmd.Wait() // how it ended does not matter
		w.mu.Lock()
		w.reaped = true
		w.mu.Unlock()
		close(w.gone)
	}()
	<-w.over
	select {
	case <-w.gone:
		return
	case <-time.After(w.ws.times.kill):
	}
	w.ws.stuck(w.lane.server, 1)
	w.ws.log.Warn("worker of the NFS backend cannot be killed", "server", w.lane.server, "pid", w.cmd.Process.Pid)
	<-w.gone
	w.ws.stuck(w.lane.server, -1)
}
