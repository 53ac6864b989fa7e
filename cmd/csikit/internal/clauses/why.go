package clauses

// Why says why nobody holds a driver to a clause from outside.
func Why(c Clause) string {
	if reason := reasons[c.ID]; reason != "" {
		return reason
	}
	switch c.Testable {
	case "no":
		return "it is about documents and deployment, and no call shows it"
	case "needs fault injection":
		return "it takes a storage that fails in a certain way at a certain time, which no call can bring about"
	}
	return ""
}

const (
	where     = "no call shows on which machine a program runs what it does"
	lenient   = "a driver that does otherwise is right too: the clause permits, and nobody can break it"
	notToKnow = "what a driver knows of its storage is not to be seen from outside"
)

// reasons are those that the table does not have.
var reasons = map[string]string{
	"GEN-10": "it takes a CO that has an account at the storage and no rights there",
	"GEN-11": "what secrets a storage takes for wrong is not to be known from outside",
	"PR-04":  "H-09/socket looks at it; the name is the CO's choice, and no driver that is wrong can be made",
	"PR-18":  where,
	"CP-02":  where,
	"CU-08":  where,
	"CP-17":  lenient,
	"NH-02":  lenient,
	"CV-17":  "which parameters mean something only the driver knows, and many ignore the others",
	"CP-08":  "H-18/controller writes to such a volume; on the node it is published readonly too, as COs do, so that a driver that forgets it here is safe all the same",
	"LH-03":  notToKnow,
	"LH-09":  notToKnow,
	"CS-05":  "how long a snapshot may take to get ready is not said: one that never does is not to be told from one that is slow",
	"DS-07":  "a driver that deletes no snapshot alone is caught for that, whether groups are the reason or not",
	"GV-02":  "the order of two writes is not to be seen from outside, unless one is lost by chance",
	"MV-05":  "what a volume's parameters are no call tells",
}
