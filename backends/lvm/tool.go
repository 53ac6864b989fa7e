package lvm

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/backends/command"
)

// settings are what lvm must not be told otherwise by a lvm.conf: in a container
// there is no udevd to wait for, nor one that makes device nodes.
var settings = map[string]string{
	"activation/udev_sync":                 "0",
	"activation/udev_rules":                "0",
	"activation/verify_udev_operations":    "0",
	"activation/monitoring":                "0",
	"activation/error_when_full":           "1", // lvcreate of 2.03.16 refuses the option of that name
	"devices/obtain_device_list_from_udev": "0",
	"devices/external_device_info_source":  `"none"`,
	"global/use_lvmpolld":                  "0",
	"report/list_item_separator":           `","`,
	"report/prefixes":                      "0",
	"report/compact_output":                "0",
	"report/binary_values_as_numeric":      "0",
	"report/mark_hidden_devices":           "1",
}

const (
	reportTimeout = time.Minute
	reportMax     = 64 << 20
	// changeIdle is how long a command that writes metadata may show no progress: it
	// may wait for the discards of a big volume, in the kernel.
	changeIdle = 10 * time.Minute
)

// runner is a *command.Runner.
type runner interface {
	Run(ctx context.Context, c command.Cmd) (command.Result, error)
}

// tool runs lvm. It never goes through a shell, and no argument of an operation
// can be taken for an option: names and tags are checked against what lvm calls
// valid, and start with none.
type tool struct {
	run    runner
	config string
	// report is how long a report may take, idle how long a command that writes
	// metadata may show no progress.
	report, idle time.Duration
	// failed is called when a command that changes a VG has failed.
	failed func(ctx context.Context, vg string)
}

func newTool(o *Options) *tool {
	all := maps.Clone(settings)
	maps.Copy(all, o.Settings)
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, k+"="+all[k])
	}
	return &tool{run: o.Command, config: strings.Join(parts, " "), report: reportTimeout, idle: changeIdle}
}

func (t *tool) cmd(vg string, args []string) command.Cmd {
	argv := append([]string{args[0], "--config", t.config}, args[1:]...)
	return command.Cmd{
		Path: "lvm", Args: argv, Scope: vg,
		Vars: map[string]string{"LVM_SUPPRESS_FD_WARNINGS": "1"},
	}
}

// read runs a command that changes nothing. Whatever goes wrong is ErrUnavailable:
// a report that is not whole says nothing about what is missing in it.
func (t *tool) read(ctx context.Context, vg string, args ...string) ([]byte, error) {
	c := t.cmd(vg, args)
	c.Timeout, c.MaxOutput = t.report, reportMax
	res, err := t.run.Run(ctx, c)
	if err == nil && res.Truncated {
		err = fmt.Errorf("lvm %s: more than %d bytes of output", args[0], reportMax)
	}
	if err != nil {
		of := "volume group " + vg
		if vg == "" {
			of = "all volume groups"
		}
		return nil, fmt.Errorf("%w: %s: %w", backends.ErrUnavailable, of, err)
	}
	return res.Stdout, nil
}

// rows is read of a report, and gives its lines of one kind ("lv": those of lvs).
func (t *tool) rows(ctx context.Context, vg, kind string, args ...string) ([]row, error) {
	out, err := t.read(ctx, vg, slices.Concat([]string{kind + "s"}, reportOptions, args)...)
	if err != nil {
		return nil, err
	}
	all, err := decodeReport(out)
	return all[kind], err
}

// change runs a command that changes the VG. Once it runs, the caller's end does
// not end it: a writer of metadata is interrupted when it makes no progress, by
// SIGTERM, which lvm puts off until its metadata is written, and then only after
// the Runner's grace by SIGKILL.
func (t *tool) change(ctx context.Context, vg string, args ...string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	c := t.cmd(vg, append([]string{args[0], "-qq", "--yes"}, args[1:]...))
	c.Idle = t.idle
	_, err := t.run.Run(context.WithoutCancel(ctx), c)
	if err != nil {
		if t.failed != nil {
			t.failed(context.WithoutCancel(ctx), vg)
		}
		return fmt.Errorf("volume group %s: %w", vg, err)
	}
	return nil
}

// said tells whether lvm ended by itself and said this. It is only used to choose
// between kinds of a failure, after a report has shown what is left.
func said(err error, words ...string) bool {
	var exit *command.ExitError
	if !errors.As(err, &exit) || exit.Cause != nil || exit.Signal != "" {
		return false
	}
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(exit.Stderr, w) })
}

// noSpace tells whether lvm found too few free extents.
func noSpace(err error) bool {
	return said(err, "nsufficient free", "nsufficient suitable allocatable", "nsufficient allocatable", "No free extents")
}
