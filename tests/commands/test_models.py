from nucseg_mmdet.commands import models
from nucseg_mmdet.engine import model_zoo


def test_every_model_is_listed_with_its_license(capsys):
    assert models.main([]) == 0
    text = capsys.readouterr().out
    for name, model in model_zoo.MODELS.items():
        assert f'{name} (default): {model.about}' in text or f'{name}: {model.about}' in text
        assert f'license     {model.license}' in text
        for scores in model.scores:
            assert f'scored on   {scores.on}: AP {scores.values["AP"]:.3f}, ' in text
    assert text.count('(default)') == 1


def test_verify_reads_the_weights(capsys, monkeypatch):
    assert models.main(['--verify']) == 0
    assert 'verified' in capsys.readouterr().out
    changed = {
        name: model_zoo.Model(**{**vars(model), 'sha256': '0' * 64})
        for name, model in model_zoo.MODELS.items()
    }
    monkeypatch.setattr(model_zoo, 'MODELS', changed)
    assert models.main(['--verify']) == 2
    assert f'expected {"0" * 64}' in capsys.readouterr().err
