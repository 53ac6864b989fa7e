package mutants

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// secrets are told where nobody should read them.
func secrets() []Mutant { return append(loggedSecrets(), toldSecrets()...) }

func loggedSecrets() []Mutant {
	return []Mutant{
		mutant(Secret, "secret-in-log", "GEN-20 PR-07 PR-14", "requests are logged as they are", func(r *Rig) {
			onSecrets(r, func(method string, req proto.Message, _ map[string]string) {
				r.log().Info("request", "method", method, "request", protojson.Format(req))
			})
		}),
		mutant(Secret, "secret-in-log-of-failure", "GEN-20 PR-07 PR-14", "the request is logged when a call has failed", func(r *Rig) {
			r.every(func(ctx context.Context, method string, req proto.Message, next next) (proto.Message, error) {
				resp, err := next(ctx, req)
				if err != nil {
					r.log().Error("failed", "method", method, "request", fmt.Sprint(req), "err", err)
				}
				return resp, err
			})
		}),
		mutant(Secret, "node-secret-in-log", "GEN-20 PR-07 PR-14", "the secrets of publish are logged", func(r *Rig) {
			onSecrets(r, func(method string, _ proto.Message, secrets map[string]string) {
				if method == "NodePublishVolume" {
					_, err := fmt.Fprintln(r.Out, "level=DEBUG mounting with", secrets)
					r.note(err)
				}
			})
		}),
		mutant(Secret, "secret-base64-in-log", "GEN-20 PR-07 PR-14", "secrets are logged in base64", func(r *Rig) {
			onSecrets(r, func(_ string, _ proto.Message, secrets map[string]string) {
				for _, k := range slices.Sorted(maps.Keys(secrets)) {
					r.log().Info("secret", "key", k, "value", base64.StdEncoding.EncodeToString([]byte(secrets[k])))
				}
			})
		}),
	}
}

func toldSecrets() []Mutant {
	return []Mutant{
		mutant(Secret, "secret-in-error", "GEN-20 PR-07", "the message of an error quotes the secrets", func(r *Rig) {
			r.every(func(ctx context.Context, method string, req proto.Message, next next) (proto.Message, error) {
				resp, err := next(ctx, req)
				if s := secretsOf(req); err != nil && len(s) > 0 {
					return nil, status.Errorf(status.Code(err), "%s with %v: %s", method, s, status.Convert(err).Message())
				}
				return resp, err
			})
		}),
		mutant(Secret, "secret-in-argv", "GEN-20 PR-07", "a helper of stage gets secrets as arguments", secretInArgv),
		mutant(Secret, "secret-in-volume-context", "CV-43 GEN-20", "volume_context has the secrets of create", func(r *Rig) {
			reply(func(q *csi.CreateVolumeRequest, resp *csi.CreateVolumeResponse) {
				for k, v := range q.GetSecrets() {
					if resp.GetVolume().VolumeContext == nil {
						resp.GetVolume().VolumeContext = make(map[string]string)
					}
					resp.GetVolume().VolumeContext[k] = v
				}
			})(r)
		}),
		mutant(Secret, "secret-in-publish-context", "CP-19 GEN-20", "publish_context has the secrets of attach", func(r *Rig) {
			reply(func(q *csi.ControllerPublishVolumeRequest, resp *csi.ControllerPublishVolumeResponse) {
				for k, v := range q.GetSecrets() {
					if resp.PublishContext == nil {
						resp.PublishContext = make(map[string]string)
					}
					resp.PublishContext[k] = v
				}
			})(r)
		}),
		mutant(Secret, "secret-in-state-file", "GEN-20 PR-07", "the request of stage is kept in a file beside the staging path", func(r *Rig) {
			reply(func(q *csi.NodeStageVolumeRequest, _ *csi.NodeStageVolumeResponse) {
				r.note(os.WriteFile(filepath.Join(filepath.Dir(q.GetStagingTargetPath()), "driver_data.json"), []byte(protojson.Format(q)), 0o600))
			})(r)
			reply(func(q *csi.NodeUnstageVolumeRequest, _ *csi.NodeUnstageVolumeResponse) {
				r.note(os.Remove(filepath.Join(filepath.Dir(q.GetStagingTargetPath()), "driver_data.json")))
			})(r)
		}),
		mutant(Secret, "token-in-log", "GEN-21 PR-07 PR-14 GEN-20", "volume_context is logged, with the pod's service account tokens", func(r *Rig) {
			around(r, func(ctx context.Context, q *csi.NodePublishVolumeRequest, next func(context.Context, *csi.NodePublishVolumeRequest) (proto.Message, error)) (proto.Message, error) {
				r.log().Info("publish", "volume", q.GetVolumeId(), "context", q.GetVolumeContext())
				return next(ctx, q)
			})
		}),
		mutant(Secret, "mount-flags-in-log", "GEN-21 PR-07", "mount_flags are logged", func(r *Rig) {
			around(r, func(ctx context.Context, q *csi.NodeStageVolumeRequest, next func(context.Context, *csi.NodeStageVolumeRequest) (proto.Message, error)) (proto.Message, error) {
				r.log().Info("mount", "path", q.GetStagingTargetPath(), "flags", strings.Join(q.GetVolumeCapability().GetMount().GetMountFlags(), ","))
				return next(ctx, q)
			})
		}),
		mutant(Secret, "snapshot-secret-in-log", "GEN-20 PR-14", "the secrets of snapshots are logged", func(r *Rig) {
			onSecrets(r, func(method string, _ proto.Message, secrets map[string]string) {
				if strings.Contains(method, "Snapshot") {
					r.log().Info("connecting", "method", method, "credentials", secrets)
				}
			})
		}),
	}
}

// onSecrets tells of each request that has secrets.
func onSecrets(r *Rig, tell func(method string, req proto.Message, secrets map[string]string)) {
	r.every(func(ctx context.Context, method string, req proto.Message, next next) (proto.Message, error) {
		if s := secretsOf(req); len(s) > 0 {
			tell(method, req, s)
		}
		return next(ctx, req)
	})
}

func secretsOf(m proto.Message) map[string]string {
	f := m.ProtoReflect().Descriptor().Fields().ByName("secrets")
	if f == nil || !f.IsMap() {
		return nil
	}
	out := make(map[string]string)
	m.ProtoReflect().Get(f).Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		out[k.String()] = v.String()
		return true
	})
	return out
}

// secretInArgv runs a helper that ps shows with its arguments, while stage lasts.
func secretInArgv(r *Rig) {
	around(r, func(ctx context.Context, q *csi.NodeStageVolumeRequest, next func(context.Context, *csi.NodeStageVolumeRequest) (proto.Message, error)) (proto.Message, error) {
		for _, k := range slices.Sorted(maps.Keys(q.GetSecrets())) {
			cmd := exec.CommandContext(ctx, "sleep", "1")
			cmd.Args[0] = "mount.helper -o " + k + "=" + q.GetSecrets()[k]
			cmd.SysProcAttr = childAttr()
			r.note(cmd.Run())
		}
		return next(ctx, q)
	})
}
