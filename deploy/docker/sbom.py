#!/usr/bin/env python3
"""Says what is in an image of deploy/docker/Dockerfile: a CycloneDX 1.5 document on standard output.

  docker export CONTAINER | sbom.py - [--version V]      or: sbom.py FOLDER [--version V]

FOLDER is the image's file system. Packages are those of /var/lib/dpkg/status.d; polyad's own files are given with their digests.
The same image gives the same document, but for what --version says.
"""
import argparse
import hashlib
import json
import pathlib
import re
import sys
import tarfile
import urllib.parse
import uuid

STATUS = "var/lib/dpkg/status.d/"
PROGRAMS = ("usr/bin/polyad", "usr/lib/x86_64-linux-gnu/polyad_cuda.so")
# Ours, to name documents by their content.
NAMESPACE = uuid.UUID("6e1f7c3a-9d0f-5f6b-8a52-0f6f6c9b5c11")


def files_of_folder(folder):
    for path in [*sorted((folder / STATUS).iterdir()), *(folder / name for name in PROGRAMS)]:
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()


def files_of_tar(stream):
    with tarfile.open(fileobj=stream, mode="r|*") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if member.isfile() and (name.startswith(STATUS) or name in PROGRAMS):
                yield name, archive.extractfile(member).read()


def fields_of(control):
    """A Debian control file's fields; continued lines are dropped."""
    return dict(line.split(": ", 1) for line in control.decode().splitlines() if re.match(r"[A-Za-z-]+: ", line))


def purl_of(fields):
    version = urllib.parse.quote(fields["Version"], safe="")
    name = urllib.parse.quote(fields["Package"].lower(), safe="")
    return f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}&distro=debian-12"


def library_of(fields):
    component = {"type": "library", "bom-ref": purl_of(fields), "name": fields["Package"], "version": fields["Version"],
                 "purl": purl_of(fields), "supplier": {"name": fields["Maintainer"]}}
    if "Source" in fields:
        component["properties"] = [{"name": "polyad:source-package", "value": fields["Source"].split()[0]}]
    return component


def file_of(name, content):
    return {"type": "file", "bom-ref": f"file:/{name}", "name": f"/{name}",
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(content).hexdigest()}]}


def depends_of(fields, known):
    names = re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9.+-]*)", fields.get("Depends", ""))
    return sorted({known[name] for name in names if name in known})


def document_of(files, version):
    packages = sorted((fields_of(content) for name, content in files.items() if name.startswith(STATUS)),
                      key=lambda fields: fields["Package"])
    own = {name: content for name, content in files.items() if name in PROGRAMS}
    if not packages or PROGRAMS[0] not in own:
        sys.exit("sbom.py: expected an image of polyad, got none of its packages or not the program")
    known = {fields["Package"]: purl_of(fields) for fields in packages}
    root = "polyad"
    document = {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": root, "name": "polyad", "version": version,
                                   "licenses": [{"license": {"id": "Apache-2.0"}}]}},
        "components": [*map(library_of, packages), *(file_of(*item) for item in sorted(own.items()))],
        "dependencies": [{"ref": root, "dependsOn": sorted([*known.values(), *(f"file:/{name}" for name in own)])},
                         *({"ref": purl_of(fields), "dependsOn": depends_of(fields, known)} for fields in packages)],
    }
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(NAMESPACE, json.dumps(document, sort_keys=True))}"
    return document


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder, or - for a tar file on standard input")
    parser.add_argument("--version", default="unknown")
    args = parser.parse_args()
    source = files_of_tar(sys.stdin.buffer) if args.root == "-" else files_of_folder(pathlib.Path(args.root))
    json.dump(document_of(dict(source), args.version), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
