package mounter

import "context"

// lockDevice keeps other volumes off the device of r while it is staged or closed:
// what claim finds stays true until the record says what became of it. It comes
// after the locks of volume and path.
func (e *Engine) lockDevice(ctx context.Context, r *record) (unlock func(), err error) {
	if r.Device == nil || r.Device.Num == 0 {
		return func() {}, nil
	}
	return e.locks.lock(ctx, "device "+devName(r.Device.Num))
}

// claim is the record by which another volume has the device of r, nil when none
// has. Two volumes on one disk are a mistake of the storage's or of the backend's:
// the second one would be formatted, or closed, under the first.
//
// A volume that is being closed has no use for its device any more, save in a
// target that is still there.
func (e *Engine) claim(s *store, r *record) (*record, error) {
	if r.Source != sourceDevice || r.Device.Num == 0 || r.BootID != e.boot {
		return nil, nil
	}
	others := s.list(func(o *record) bool {
		return o.Volume != r.Volume && o.BootID == e.boot && o.Device != nil && o.Device.same(r.Device)
	})
	for _, o := range others {
		if o.Kind == kindStage && o.Phase != phaseClosing {
			return o, nil
		}
		if o.Kind != kindPublish {
			continue
		}
		if live, err := e.targetLives(s, o); live || err != nil {
			return o, err
		}
	}
	return nil, nil
}

// same reports whether both are one instance of a disk, by the number alone where
// the kernel counts no instances.
func (r *deviceRecord) same(o *deviceRecord) bool {
	return r.Num == o.Num && (r.DiskSeq == o.DiskSeq || r.DiskSeq == 0 || o.DiskSeq == 0)
}

// notClaimed refuses a device that another volume has.
func (e *Engine) notClaimed(s *store, r *record) error {
	o, err := e.claim(s, r)
	if err != nil || o == nil {
		return err
	}
	return inUse("device %s is staged for volume %q at %s", r.Device.Path, o.Volume, o.Path)
}
