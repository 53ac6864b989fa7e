package crash

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// scenario is one RPC in one state of the world.
type scenario struct {
	name  string // begins with the RPC's
	pool  string // "copy" or "reflink"
	flags []string
	// offline: the driver may not grow an ext4 in use.
	offline bool
	setup   func(e *env) error
	call    func(e *env) func(context.Context) error
	// check looks at the data after the call was repeated until OK. It may use the
	// driver, and leaves what it found.
	check func(e *env) error
	// undo is what a CO does that gave up; it leaves nothing.
	undo func(e *env) []step
	// again is what a CO does that wants back what was to be taken away, instead of
	// undo at once.
	again func(e *env) error
}

// pick makes the scenarios of one volume.
func one(name, pool string, make func(e *env) *volume, prepare func(v *volume) []step, call func(v *volume) func(context.Context) error, check func(v *volume) error) *scenario {
	return &scenario{
		name: name, pool: pool,
		setup: func(e *env) error { return e.steps(prepare(make(e))...) },
		call:  func(e *env) func(context.Context) error { return call(make(e)) },
		check: func(e *env) error { return check(make(e)) },
		undo:  func(e *env) []step { return make(e).end() },
	}
}

func plain(fsType string) func(e *env) *volume {
	return func(e *env) *volume { return e.volume("a", fsType) }
}

func created(v *volume) []step { return []step{{"create", v.create}} }
func staged(v *volume) []step  { return append(created(v), step{"stage", v.stage}) }
func written(v *volume) []step { return append(created(v), v.use()...) }
func kept(v *volume) []step    { return append(written(v), v.drop()...) } // and off the node

func published(v *volume) []step {
	return append(written(v), step{"unpublish", v.unpublish})
}

func nothing(*volume) error { return nil }

// own: the volume has its own bytes where it is published.
func own(v *volume) error { return v.reads(v.name) }

// ownLater: it has them when it is brought to the node.
func ownLater(v *volume) error { return v.has(v.name) }

func scenarios() []*scenario {
	return slices.Concat(creates(), services(), deletes(), stages(), publishes(), others())
}

func creates() []*scenario {
	thick := func(e *env) *volume {
		v := e.volume("a", "ext4")
		v.thick = true
		return v
	}
	return []*scenario{
		one("CreateVolume thin", "copy", plain("ext4"), noSteps, (*volume).creating, func(v *volume) error {
			return v.e.steps(v.use()...)
		}),
		one("CreateVolume thick", "reflink", thick, noSteps, (*volume).creating, nothing),
		one("ControllerExpandVolume thick", "copy", thick, kept, func(v *volume) func(context.Context) error { return v.expand }, ownLater),
		one("ControllerExpandVolume thin, in use", "reflink", plain("xfs"), written, func(v *volume) func(context.Context) error { return v.expand }, own),
	}
}

func noSteps(*volume) []step { return nil }

func (v *volume) creating() func(context.Context) error { return v.create }

// services are snapshots, groups, restores and clones: closed on a file system that
// copies, in use on one with reflinks.
func services() []*scenario {
	var all []*scenario
	for _, pool := range []string{"copy", "reflink"} {
		prepare, state, look := kept, "closed", ownLater
		if pool == "reflink" {
			prepare, state, look = written, "in use", own
		}
		ab := func(e *env) (*volume, *volume) { return e.volume("a", "ext4"), e.volume("b", "ext4") }
		both := func(e *env) error {
			a, b := ab(e)
			return e.steps(append(prepare(a), prepare(b)...)...)
		}
		ends := func(e *env) []step {
			a, b := ab(e)
			return append(a.end(), b.end()...)
		}
		restore := one("CreateVolume of a snapshot, "+pool, pool, plain("ext4"), nil, nil, nil)
		restore.setup = func(e *env) error {
			a := e.volume("a", "ext4")
			return e.steps(append(prepare(a), step{"snapshot", e.snapshot("s", a)})...)
		}
		restore.call = func(e *env) func(context.Context) error { return e.restored("r", "s").create }
		restore.check = func(e *env) error {
			if err := e.restored("r", "s").has("a"); err != nil {
				return err
			}
			return look(e.volume("a", "ext4"))
		}
		restore.undo = func(e *env) []step {
			all := append(e.volume("r", "ext4").end(), step{"delete snapshot", e.deleteSnapshot("s")})
			return append(all, e.volume("a", "ext4").end()...)
		}
		clone := one("CreateVolume of a volume "+state+", "+pool, pool, plain("ext4"), prepare, func(v *volume) func(context.Context) error {
			return v.e.cloned("c", v).create
		}, func(v *volume) error {
			if err := v.e.cloned("c", v).has("a"); err != nil {
				return err
			}
			return look(v)
		})
		clone.undo = func(e *env) []step { return append(e.volume("c", "ext4").end(), e.volume("a", "ext4").end()...) }
		snap := one("CreateSnapshot "+state+", "+pool, pool, plain("ext4"), prepare, func(v *volume) func(context.Context) error {
			return v.e.snapshot("s", v)
		}, func(v *volume) error {
			if err := v.e.holds("s", v); err != nil {
				return err
			}
			return look(v)
		})
		snap.undo = func(e *env) []step {
			return append([]step{{"delete snapshot", e.deleteSnapshot("s")}}, e.volume("a", "ext4").end()...)
		}
		group := &scenario{
			name: "CreateVolumeGroupSnapshot " + state + ", " + pool, pool: pool, setup: both,
			call: func(e *env) func(context.Context) error {
				a, b := ab(e)
				return e.group("g", a, b)
			},
			check: func(e *env) error {
				for _, n := range []string{"a", "b"} {
					v := e.volume(n, "ext4")
					if err := e.holds("g "+n, v); err != nil {
						return err
					}
					if err := look(v); err != nil {
						return err
					}
				}
				return nil
			},
			undo: func(e *env) []step {
				a, b := ab(e)
				return append([]step{{"delete group", e.deleteGroup("g", a, b)}}, ends(e)...)
			},
		}
		all = append(all, restore, clone, snap, group)
	}
	return all
}

func deletes() []*scenario {
	remove := one("DeleteVolume", "copy", plain("ext4"), kept, func(v *volume) func(context.Context) error { return v.remove }, nothing)
	// A new volume of the name is a new one: without the bytes of the old.
	remove.again = func(e *env) error {
		v := e.volume("a", "ext4")
		if err := e.steps(step{"create again", v.create}, step{"stage", v.stage}, step{"publish", v.publish}); err != nil {
			return err
		}
		if _, err := os.Stat(v.data()); err == nil {
			if own(v) != nil { // the delete was killed before it began: the volume is the old one
				return fmt.Errorf("%s is there, with other bytes", v.data())
			}
		}
		return nil
	}
	snap := one("DeleteSnapshot", "reflink", plain("ext4"), func(v *volume) []step {
		return append(kept(v), step{"snapshot", v.e.snapshot("s", v)})
	}, func(v *volume) func(context.Context) error { return v.e.deleteSnapshot("s") }, ownLater)
	snap.undo = func(e *env) []step {
		return append([]step{{"delete snapshot", e.deleteSnapshot("s")}}, e.volume("a", "ext4").end()...)
	}
	snap.again = func(e *env) error {
		v := e.volume("a", "ext4")
		if err := e.steps(step{"snapshot again", e.snapshot("s", v)}); err != nil {
			return err
		}
		return e.holds("s", v)
	}
	group := &scenario{
		name: "DeleteVolumeGroupSnapshot", pool: "reflink",
		setup: func(e *env) error {
			a, b := e.volume("a", "ext4"), e.volume("b", "ext4")
			return e.steps(append(append(kept(a), kept(b)...), step{"group", e.group("g", a, b)})...)
		},
		call: func(e *env) func(context.Context) error {
			return e.deleteGroup("g", e.volume("a", "ext4"), e.volume("b", "ext4"))
		},
		check: func(e *env) error { return ownLater(e.volume("b", "ext4")) },
		undo: func(e *env) []step {
			a, b := e.volume("a", "ext4"), e.volume("b", "ext4")
			return append([]step{{"delete group", e.deleteGroup("g", a, b)}}, append(a.end(), b.end()...)...)
		},
	}
	group.again = func(e *env) error {
		a, b := e.volume("a", "ext4"), e.volume("b", "ext4")
		if err := e.steps(step{"group again", e.group("g", a, b)}); err != nil {
			return err
		}
		return e.holds("g a", a)
	}
	return []*scenario{remove, snap, group}
}

func stages() []*scenario {
	stage := func(v *volume) func(context.Context) error { return v.stage }
	firstWrite := func(v *volume) error { return v.e.steps(v.use()[1:]...) }
	readAgain := func(v *volume) error {
		if err := v.e.steps(step{"publish", v.publish}); err != nil {
			return err
		}
		return v.reads(v.name)
	}
	bigger := func(v *volume) []step { return append(kept(v), step{"expand", v.expand}) }
	resizing := func(v *volume) []step { return append(bigger(v), step{"stage, its resize2fs killed", v.resizeKilled}) }
	second := one("NodeStageVolume at a second path", "copy", plain("ext4"), written, func(v *volume) func(context.Context) error {
		return v.at(v.staging() + "-2").stage
	}, own)
	second.undo = func(e *env) []step {
		v := e.volume("a", "ext4")
		return append([]step{{"unpublish", v.unpublish}, {"unstage the second", v.at(v.staging() + "-2").unstage}}, v.end()...)
	}
	return []*scenario{
		one("NodeStageVolume ext4, new", "copy", plain("ext4"), created, stage, firstWrite),
		one("NodeStageVolume xfs, new", "reflink", plain("xfs"), created, stage, firstWrite),
		one("NodeStageVolume ext4, with data", "reflink", plain("ext4"), kept, stage, readAgain),
		offline(one("NodeStageVolume ext4, grown", "copy", plain("ext4"), bigger, stage, readAgain)),
		offline(one("NodeStageVolume ext4, after a killed resize", "copy", plain("ext4"), resizing, stage, readAgain)),
		offline(one("NodeUnstageVolume ext4, after a killed resize", "copy", plain("ext4"), resizing, func(v *volume) func(context.Context) error {
			return v.unstage
		}, ownLater)),
		one("NodeStageVolume ext4, after a killed mkfs", "copy", plain("ext4"), func(v *volume) []step {
			return append(created(v), step{"stage, killed", v.stageKilled})
		}, stage, firstWrite),
		one("NodeStageVolume block", "copy", plain("block"), created, stage, firstWrite),
		second,
	}
}

// stageKilled is a stage in which the driver dies when mkfs has ended and nobody
// knows, and that is not repeated yet.
func (v *volume) stageKilled(ctx context.Context) error {
	return v.e.killedAt(ctx, "mounter.format.made:1", v.stage)
}

func offline(s *scenario) *scenario {
	s.offline = true
	return s
}

// resizeKilled is a stage that fails because resize2fs dies in the midst of it.
func (v *volume) resizeKilled(ctx context.Context) error {
	// The driver itself does not write as often.
	s, err := v.e.trace("pwrite64", "-e", "inject=pwrite64:signal=SIGKILL:when=20")
	if err != nil {
		return err
	}
	err = v.stage(ctx)
	if died := v.e.died(err); died || err == nil {
		return errors.Join(fmt.Errorf("the driver died: %v, and answered %w", died, err), s.stop(died))
	}
	return s.stop(false)
}

func publishes() []*scenario {
	publish := func(v *volume) func(context.Context) error { return v.publish }
	unpublish := func(v *volume) func(context.Context) error { return v.unpublish }
	unstage := func(v *volume) func(context.Context) error { return v.unstage }
	readOnly := func(fsType string) func(e *env) *volume {
		return func(e *env) *volume {
			v := e.volume("a", fsType)
			v.readOnly = true
			return v
		}
	}
	taken := func(s *scenario, back ...func(v *volume) func(context.Context) error) *scenario {
		make := s.undo
		s.again = func(e *env) error {
			v := e.volume("a", s.fsType())
			for _, f := range back {
				if err := e.steps(step{"bring back", f(v)}); err != nil {
					return err
				}
			}
			return v.reads("a")
		}
		s.undo = make
		return s
	}
	stage := func(v *volume) func(context.Context) error { return v.stage }
	flagged := one("NodeUnpublishVolume block, read-only", "copy", readOnly("block"), func(v *volume) []step {
		return append(staged(v), step{"publish", v.publish})
	}, unpublish, nothing)
	return []*scenario{
		one("NodePublishVolume ext4", "copy", plain("ext4"), published, publish, own),
		one("NodePublishVolume ext4, read-only", "reflink", readOnly("ext4"), staged, publish, nothing),
		one("NodePublishVolume block", "copy", plain("block"), published, publish, own),
		one("NodePublishVolume block, read-only", "reflink", readOnly("block"), staged, publish, nothing),
		taken(one("NodeUnpublishVolume ext4", "copy", plain("ext4"), written, unpublish, nothing), publish),
		taken(one("NodeUnpublishVolume block", "reflink", plain("block"), written, unpublish, nothing), publish),
		flagged,
		taken(one("NodeUnstageVolume ext4", "copy", plain("ext4"), published, unstage, ownLater), stage, publish),
		taken(one("NodeUnstageVolume block", "reflink", plain("block"), published, unstage, ownLater), stage, publish),
	}
}

// fsType is the one that the name speaks of.
func (s *scenario) fsType() string {
	if strings.Contains(s.name, "block") {
		return "block"
	}
	return "ext4"
}

func others() []*scenario {
	grow := func(v *volume) func(context.Context) error { return v.nodeExpand }
	bigger := func(v *volume) []step { return append(written(v), step{"expand", v.expand}) }
	attached := func(e *env) *volume {
		v := e.volume("a", "ext4")
		v.attach = true
		return v
	}
	attach := one("ControllerPublishVolume", "copy", attached, created, func(v *volume) func(context.Context) error {
		return v.controllerPublish
	}, func(v *volume) error { return v.e.steps(v.use()...) })
	detach := one("ControllerUnpublishVolume", "copy", attached, func(v *volume) []step {
		all := append(created(v), step{"attach", v.controllerPublish})
		all = append(append(all, v.use()...), v.drop()...)
		return all[:len(all)-1] // but the detach
	}, func(v *volume) func(context.Context) error { return v.controllerUnpublish }, nothing)
	detach.again = func(e *env) error {
		v := attached(e)
		if err := e.steps(step{"attach", v.controllerPublish}); err != nil {
			return err
		}
		return v.has("a")
	}
	attach.flags, detach.flags = []string{"-attach"}, []string{"-attach"}
	inline := one("NodePublishVolume inline", "copy", plain("ext4"), noSteps, func(v *volume) func(context.Context) error {
		return v.publishInline
	}, func(v *volume) error { return v.write(v.e.client) })
	gone := one("NodeUnpublishVolume inline", "reflink", plain("ext4"), func(v *volume) []step {
		return []step{{"publish", v.publishInline}, {"write", v.write}}
	}, func(v *volume) func(context.Context) error { return v.unpublishInline }, nothing)
	inline.undo = func(e *env) []step {
		return []step{{"unpublish", e.volume("a", "ext4").unpublishInline}}
	}
	gone.undo = inline.undo
	return []*scenario{
		one("NodeExpandVolume xfs", "copy", plain("xfs"), bigger, grow, own),
		one("NodeExpandVolume block", "reflink", plain("block"), bigger, grow, own),
		attach, detach, inline, gone,
	}
}
