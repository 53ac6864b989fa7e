// Package journal remembers across a kill -9 what was about to be done, for
// backends whose storage cannot.
//
// A cloud API makes a volume and the reply is lost, or the process is killed
// before it reads it. Nobody knows then whether there is a volume. A retry that
// asks again gets a second one, and nobody will ever delete the first: a leak. An
// intent that was written down before tells the next try, and the next process,
// that there is something to look for.
//
// A [Journal] is a directory with one record for each unfinished intent. The
// record is on the disk when [Journal.Begin] returns, before the storage is asked,
// and is gone from it when [Intent.Finish] returns, before the orchestrator is
// answered:
//
//	in, err := j.Begin("CreateVolume "+name, attempt{})
//	if err != nil {
//		return nil, err // nothing was asked of the storage
//	}
//	defer in.Leave() // the outcome is unknown, unless Finish was called
//	if in.Earlier() {
//		// An earlier try has not come to an end that anybody knows: look for what
//		// it may have made, for as long as the storage may take to show it.
//	}
//	vol, err := cloud.Create(ctx, name)
//	if unknown(err) {
//		return nil, fmt.Errorf("%w: %w", backends.ErrUnavailable, err)
//	}
//	if err := in.Finish(); err != nil {
//		return nil, err
//	}
//
// At start, [Journal.Replay] hands every unfinished intent to the backend, which
// looks what became of it. It must not undo what it finds: the orchestrator may
// have been told of it, and will in any case ask again or ask for its deletion.
// What stays unknown is listed by [Journal.Leaks], for a person.
//
// The outcome is known when the next who looks will see it. Where a listing is late
// to show a new volume, Finish comes when it does: else a call that is repeated
// finds neither the volume nor the intent.
//
// # Guarantees
//
//   - When Begin, Update or Finish has returned without an error, the record is on
//     the disk (or gone), also after a power cut, as far as the file system and the
//     disk keep what fsync promises. After an error, or a kill meanwhile, it is as
//     before or as after, and never between.
//   - One process at a time has a journal, and within it one caller an intent.
//   - A record that cannot be read, or was written by a newer release, is never
//     changed, removed or guessed at. [Journal.Refused] names its file, Begin for
//     its key fails, and all others work.
//   - The journal has a largest number of intents, and an intent a largest size.
//
// # When not to use it
//
// Where the storage itself can hold the intent, or makes one volume of two requests
// with one token or name: there the truth is in one place. It must lie on a disk
// that the next process of the same driver sees: a controller that may start on
// another host needs a volume for it, or storage of another kind.
//
// A record holds what it is given, as JSON in a file of mode 0600. Give it no
// secrets; those of package backends are written as their redaction.
//
// Package journal imports the standard library only.
package journal
