package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	mountutils "k8s.io/mount-utils"

	"github.com/csikit/csikit/backends"
	"github.com/csikit/csikit/mounter"
	"github.com/csikit/csikit/mounter/mnt"
)

// publishes measures many publishes of one volume on a node that has many mounts.
// All are unpublished again, and the time is that of one publish.
func publishes(ctx context.Context, c config, dir string) (t *table, err error) {
	m, err := newMountRig(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.close()) }()
	r, err := newStageRig(ctx, c, dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.attach(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.detach(ctx)) }()
	if err := r.stage(ctx, "ext4"); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.unstage(ctx)) }()
	most := c.mounts[len(c.mounts)-1]
	if err := m.grow(most); err != nil {
		return nil, err
	}
	p := &publisher{stageRig: r, utils: mountutils.New(""), dir: filepath.Join(r.dir, "targets")}
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		return nil, err
	}
	line := &row{
		item: fmt.Sprintf("one of %d publishes, %d mounts", c.publishes, most), csikit: &figure{name: "csikit"},
		others: []*figure{{name: "mount-utils (of 20)"}, {name: "mount(2)"}},
		note:   "csikit's holds a durable record; mount-utils' and the raw one leave nothing behind by which to find it again",
	}
	err = interleave(ctx, min(3, c.rounds),
		p.task(line.csikit, c.publishes, p.publish, p.unpublish),
		p.task(line.others[0], 20, p.publishUtils, p.unmountTarget),
		p.task(line.others[1], c.publishes, p.publishRaw, p.unmountTarget))
	return &table{title: "a busy node", rows: []*row{line}}, err
}

type publisher struct {
	*stageRig
	utils mountutils.Interface
	dir   string
}

// task publishes to n targets, notes the time of one, and takes them back.
func (p *publisher) task(f *figure, n int, publish, unpublish func(context.Context, string) error) task {
	return func(ctx context.Context) error {
		all := func(do func(context.Context, string) error) error {
			for i := range n {
				if err := do(ctx, filepath.Join(p.dir, fmt.Sprintf("t%d", i))); err != nil {
					return fmt.Errorf("%s: %w", f.name, err)
				}
			}
			return nil
		}
		begin := time.Now()
		err := all(publish)
		f.rounds.add(float64(time.Since(begin)) / float64(n))
		if err != nil {
			return err
		}
		return all(unpublish)
	}
}

func (p *publisher) publish(ctx context.Context, target string) error {
	return p.engine.Publish(ctx, mounter.PublishRequest{
		ID: "v", StagingPath: p.path, Path: target, Capability: backends.Capability{Mode: backends.SingleNodeMultiWriter, FSType: "ext4"},
	})
}

func (p *publisher) unpublish(ctx context.Context, target string) error {
	return p.engine.Unpublish(ctx, mounter.UnpublishRequest{ID: "v", Path: target})
}

// publishUtils is what drivers do with mount-utils.
func (p *publisher) publishUtils(_ context.Context, target string) error {
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	if is, err := p.utils.IsMountPoint(target); err != nil || is {
		return errors.Join(err, errNoMount)
	}
	return p.utils.Mount(p.path, target, "", []string{"bind"})
}

func (p *publisher) publishRaw(_ context.Context, target string) error {
	return errors.Join(os.Mkdir(target, 0o755), rawBind(p.path, target))
}

func (p *publisher) unmountTarget(_ context.Context, target string) error {
	_, err := mnt.Unmount(target)
	return errors.Join(err, os.Remove(target))
}
