"""What the documentation says of the tests and files."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parent.parent


def test_every_test_that_the_guarantees_name_exists() -> None:
    named = set(re.findall(r'`(test_[a-z0-9_]+)`', (ROOT / 'docs' / 'guarantees.md').read_text('utf-8')))
    sources = '\n'.join(path.read_text('utf-8') for path in (ROOT / 'tests').rglob('test_*.py'))
    defined = set(re.findall(r'def (test_\w+)', sources)) | {path.stem for path in (ROOT / 'tests').rglob('test_*.py')}
    assert len(named) > 50
    assert named - defined == set()


def test_every_link_within_the_documentation_leads_somewhere() -> None:
    for page in [ROOT / 'README.md', *(ROOT / 'docs').rglob('*.md'), *(ROOT / 'benchmarks').glob('*.md')]:
        for target in re.findall(r'\]\(([^)#:]+)\)', page.read_text('utf-8')):
            assert (page.parent / target).exists(), f'{page.name}: {target}'
