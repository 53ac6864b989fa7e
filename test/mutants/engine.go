package mutants

import (
	"context"

	"github.com/csikit/csikit/csidriver"
	"github.com/csikit/csikit/mounter"
)

// engineHooks are around methods of the node engine; nil: as it is.
type engineHooks struct {
	Stage     func(ctx context.Context, req mounter.StageRequest, next func(context.Context, mounter.StageRequest) error) error
	Unstage   func(ctx context.Context, req mounter.UnstageRequest, next func(context.Context, mounter.UnstageRequest) error) error
	Publish   func(ctx context.Context, req mounter.PublishRequest, next func(context.Context, mounter.PublishRequest) error) error
	Unpublish func(ctx context.Context, req mounter.UnpublishRequest, next func(context.Context, mounter.UnpublishRequest) error) error
	Expand    func(ctx context.Context, req mounter.ExpandRequest, next func(context.Context, mounter.ExpandRequest) (int64, error)) (int64, error)
}

// engine is a node engine with hooks.
type engine struct {
	csidriver.Engine
	h engineHooks
}

func (e *engine) Stage(ctx context.Context, req mounter.StageRequest) error {
	if e.h.Stage == nil {
		return e.Engine.Stage(ctx, req)
	}
	return e.h.Stage(ctx, req, e.Engine.Stage)
}

func (e *engine) Unstage(ctx context.Context, req mounter.UnstageRequest) error {
	if e.h.Unstage == nil {
		return e.Engine.Unstage(ctx, req)
	}
	return e.h.Unstage(ctx, req, e.Engine.Unstage)
}

func (e *engine) Publish(ctx context.Context, req mounter.PublishRequest) error {
	if e.h.Publish == nil {
		return e.Engine.Publish(ctx, req)
	}
	return e.h.Publish(ctx, req, e.Engine.Publish)
}

func (e *engine) Unpublish(ctx context.Context, req mounter.UnpublishRequest) error {
	if e.h.Unpublish == nil {
		return e.Engine.Unpublish(ctx, req)
	}
	return e.h.Unpublish(ctx, req, e.Engine.Unpublish)
}

func (e *engine) Expand(ctx context.Context, req mounter.ExpandRequest) (int64, error) {
	if e.h.Expand == nil {
		return e.Engine.Expand(ctx, req)
	}
	return e.h.Expand(ctx, req, e.Engine.Expand)
}
