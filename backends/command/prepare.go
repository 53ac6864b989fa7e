package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// pipeDelay bounds the wait for output after the tool has ended, when a daemon
// that it left still holds the pipe.
const pipeDelay = time.Second

// check refuses what no tool may be started with.
func check(c Cmd, red *redactor) error {
	if c.Path == "" || strings.Contains(c.Path, "/") && !filepath.IsAbs(c.Path) {
		return fmt.Errorf("path %q is neither a bare name nor absolute", c.Path)
	}
	if strings.ContainsRune(c.Path+c.Dir, 0) {
		return errors.New("NUL in the path or the directory")
	}
	for i, a := range c.Args {
		if strings.ContainsRune(a, 0) {
			return fmt.Errorf("NUL in argument %d", i+1)
		}
	}
	if i := red.exposed(c.Args); i >= 0 {
		return fmt.Errorf("argument %d is a secret: give it by Env, Stdin or Files", i+1)
	}
	for _, k := range slices.Concat(slices.Collect(maps.Keys(c.Vars)), c.Env.Keys()) {
		if err := checkVar(k); err != nil {
			return err
		}
	}
	return nil
}

// checkVar keeps the environment minimal: the names may come from a secret that
// a user wrote.
func checkVar(name string) error {
	switch {
	case name == "" || strings.ContainsAny(name, "=\x00"):
		return fmt.Errorf("environment variable %q has no valid name", name)
	case name == "PATH", name == "LC_ALL", name == "IFS", name == "ENV", name == "BASH_ENV", strings.HasPrefix(name, "LD_"), strings.HasPrefix(name, "DYLD_"):
		return fmt.Errorf("environment variable %s may not be set", name)
	}
	return nil
}

// environ is the child's whole environment.
func (r *Runner) environ(c Cmd) ([]string, error) {
	env := []string{"PATH=" + r.path, "LC_ALL=C"}
	for _, k := range slices.Sorted(maps.Keys(c.Vars)) {
		env = append(env, k+"="+c.Vars[k])
	}
	for _, k := range c.Env.Keys() {
		v, _ := c.Env.Lookup(k)
		env = append(env, k+"="+v)
	}
	for _, kv := range env {
		if name, value, _ := strings.Cut(kv, "="); strings.ContainsRune(value, 0) {
			return nil, fmt.Errorf("NUL in environment variable %s", name)
		}
	}
	return env, nil
}

// Installed is a [*NotInstalledError] when Run would not find the tool.
func (r *Runner) Installed(tool string) error {
	_, err := r.lookPath(tool)
	return err
}

// lookPath finds a tool in the Runner's own path, so that what is run does not
// depend on who started the driver.
func (r *Runner) lookPath(name string) (string, error) {
	var errs []error
	dirs := filepath.SplitList(r.path)
	if filepath.IsAbs(name) {
		dirs = []string{""}
	}
	for _, d := range dirs {
		p := filepath.Join(d, name)
		fi, err := os.Stat(p)
		switch {
		case err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o111 != 0:
			return p, nil
		case err == nil:
			errs = append(errs, fmt.Errorf("%s is no executable file", p))
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return "", errors.Join(errs...)
	}
	return "", &NotInstalledError{Tool: name, Package: debianPackage(filepath.Base(name))}
}

// start starts the child in its own process group.
func (r *Runner) start(path string, c Cmd, red *redactor) (*process, error) {
	env, err := r.environ(c)
	if err != nil {
		return nil, err
	}
	files, args, err := secretFiles(c.Files, c.Args)
	defer closeAll(files)
	if err != nil {
		return nil, err
	}
	// Not CommandContext: it kills the child alone, at once, and hides the reason.
	cmd := exec.Command(path, args...) //nolint:noctx // watch and end do it for the group
	cmd.Env, cmd.Dir, cmd.WaitDelay = env, c.Dir, pipeDelay
	cmd.ExtraFiles = slices.Concat(files, c.Hold) // in this order: arguments number files
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	limit := max(orDefault(c.MaxOutput, defaultOutput), minOutput)
	p := &process{cmd: cmd, kill: r.kill, stdout: &output{max: limit}, stderr: &output{max: limit},
		zombie: make(chan struct{}), mayReap: make(chan struct{}), over: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.stdout, p.stderr
	var stdin io.WriteCloser
	if c.Stdin != nil {
		if stdin, err = cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	if stdin != nil {
		// Not cmd.Stdin: os/exec would wait for a Reader that blocks. A tool that
		// does not read all of it has its own reasons, and its own exit code.
		go func() {
			_, _ = io.Copy(stdin, io.TeeReader(c.Stdin, red))
			_ = stdin.Close()
		}()
	}
	go p.await()
	return p, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // memory only: nothing to lose
	}
}
