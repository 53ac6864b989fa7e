package kmount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"

	"k8s.io/utils/exec"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
	"github.com/csikit/csikit/mounter"
)

func newRunner(log *slog.Logger) mounter.Commands {
	return command.New(&command.Options{Logger: log})
}

// tools runs the tools of the host by an exec.Interface, which has no process
// groups and no deadline by progress: Cmd.Timeout and the context are what ends one.
type tools struct{ exec exec.Interface }

func (t tools) Run(ctx context.Context, c command.Cmd) (command.Result, error) {
	if len(c.Files) > 0 {
		return command.Result{}, fmt.Errorf("%w: secrets in files for %s, by an exec.Interface", backends.ErrUnsupported, c.Path)
	}
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	defer backends.Busy(ctx, c.Path)()
	args, err := deviceArgs(c.Args)
	if err != nil {
		return command.Result{}, err
	}
	cmd := t.exec.CommandContext(ctx, c.Path, args...)
	if env := environment(c); env != nil {
		cmd.SetEnv(env)
	}
	if c.Dir != "" {
		cmd.SetDir(c.Dir)
	}
	if c.Stdin != nil {
		cmd.SetStdin(c.Stdin)
	}
	out, err := cmd.CombinedOutput()
	res := command.Result{Stdout: out}
	if err == nil {
		return res, nil
	}
	return t.failed(ctx, c, res, err)
}

// failed is the error as the engine reads it.
func (t tools) failed(ctx context.Context, c command.Cmd, res command.Result, err error) (command.Result, error) {
	if errors.Is(err, exec.ErrExecutableNotFound) {
		res.Code = -1
		return res, &command.NotInstalledError{Tool: c.Path}
	}
	res.Code = -1
	var exit exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		res.Code = exit.ExitStatus()
	}
	failure := &command.ExitError{Argv: c.Path, Code: res.Code, Stderr: tail(redacted(res.Stdout, c.Env)), Cause: context.Cause(ctx)}
	if failure.Code < 0 && failure.Cause == nil {
		failure.Cause = err
	}
	return res, failure
}

// deviceArgs gives the tools the device's path where the engine names its open
// descriptor, which is this process's and may mean nothing where they run. It is
// held, so that its number cannot become another disk's.
func deviceArgs(args []string) ([]string, error) {
	own := "/proc/" + strconv.Itoa(os.Getpid()) + "/fd/"
	args = slices.Clone(args)
	for i, a := range args {
		if !strings.HasPrefix(a, own) {
			continue
		}
		path, err := os.Readlink(a)
		if err != nil {
			return nil, err
		}
		args[i] = path
	}
	return args, nil
}

// environment is nil where the command may have the one of this process.
func environment(c command.Cmd) []string {
	if len(c.Vars) == 0 && len(c.Env.Keys()) == 0 {
		return nil
	}
	env := []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C"}
	for k, v := range c.Vars {
		env = append(env, k+"="+v)
	}
	for _, k := range c.Env.Keys() {
		v, _ := c.Env.Lookup(k)
		env = append(env, k+"="+v)
	}
	return env
}

func redacted(out []byte, env backends.Secrets) []byte {
	for _, k := range env.Keys() {
		if v, _ := env.Lookup(k); v != "" {
			out = bytes.ReplaceAll(out, []byte(v), []byte("***"))
		}
	}
	return out
}

// tail is the end of an output, where tools say what went wrong.
func tail(out []byte) string {
	const most = 1024
	out = bytes.TrimSpace(out)
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return string(out)
}
