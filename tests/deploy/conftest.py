"""The image of the program, built once for the tests that run from it."""
import os
import pathlib

import pytest

import image

FOLDER = pathlib.Path(os.environ["POLYAD_DEPLOY_FOLDER"])


@pytest.fixture(scope="session")
def store():
    store = image.Store(FOLDER / "images")
    store.clean()
    store.add_base(image.BASE, FOLDER / "base.tar")
    return store


@pytest.fixture(scope="session")
def polyad_image(store):
    """-> its name; of version 0.1.0, revision abc123"""
    name = "localhost/polyad-test"
    context = image.context_of(pathlib.Path(os.environ["POLYAD_PROGRAM"]), FOLDER / "context")
    store.build(context / "deploy/docker/Dockerfile", context, name, DEBIAN=image.BASE, PREBUILT="prebuilt",
                VERSION="0.1.0", REVISION="abc123")
    yield name
    store.run("rmi", "-f", name)
