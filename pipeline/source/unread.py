"""Notes on the files below a source's path that are not read: their number, and an example."""

from collections.abc import Mapping, Sequence

from pipeline.source.documents import Fault

WHY = {
    "hidden": "their names, or those of their folders, start with `.` or `_`",
    "other_ending": "their names do not end with {endings}",
    "other_name": "the tree has no place for them",
    "no_documents": "the documents file that they belong to is not there",
    "incomplete": "they are parts of files that are being fetched",
    "not_chosen": "the settings of the source leave them out",
    "held_out": "they belong to targets",
    "skipped_folder": "these folders hold tests, caches or other packages, or are links",
    "no_documentation": "they are licences, notices or lists of requirements",
    "second_link": "the files or folders that these links lead to are read by another path",
    "dangling_link": "these links lead nowhere or in a circle",
    "outside_folder": "these links lead to places outside of the source's path",
    "not_a_file": "they are pipes, devices or sockets",
    "unreadable_folder": "these folders cannot be opened",
    "missing_file": "the tree's listings name them, and they are not there",
}
# Reasons that may mean that documents are missing. The build warns of them.
SUSPECT = ("dangling_link", "outside_folder", "not_a_file", "unreadable_folder", "missing_file")
_EXAMPLES = 3


def unread_notes(unread: Mapping[str, Sequence[str]], endings: str = "") -> list[Fault]:
    """Return one note per reason.

    Args:
        unread: Labels of files, or of folders that cannot be opened, by a key of `WHY`.
        endings: The names that the source reads, for the sentence.
    """
    notes = []
    for reason in sorted(unread):
        if labels := unread[reason]:
            examples = ", ".join(labels[:_EXAMPLES])
            more = ", ..." if len(labels) > _EXAMPLES else ""
            why = WHY[reason].format(endings=endings)
            detail = f"{len(labels)} not read, {examples}{more}: {why}"
            notes.append(Fault(labels[0], None, reason, detail, counted=False, records=len(labels)))
    return notes
