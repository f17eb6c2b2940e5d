"""What is right and what is not, of answers as models give them, to truths as sets of radiographs have them."""

from __future__ import annotations

import pytest

from m3node.attention.questions.answers import is_correct

# A question, then truths and answers to it.
RIGHT = """\
Is there a pleural effusion?
  yes = Yes, there is a small left pleural effusion with blunting of the costophrenic angle.
  no = No, there is no evidence of pleural effusion in this chest X-ray.
  no = Based on the provided chest X-ray, there is no clear evidence of pleural effusion.
  yes = Based on the image, there appears to be a small left-sided pleural effusion.
  yes = There are bilateral pleural effusions, larger on the right.
  yes = Small bilateral effusions are noted.
  no = The costophrenic angles are sharp. No pleural effusion or pneumothorax.
Is there a pneumothorax?
  no = No pleural effusion or pneumothorax is seen.
  no = There is no pleural effusion, pneumothorax, or focal consolidation.
Is there focal consolidation?
  no = There is no pleural effusion, pneumothorax, or focal consolidation.
Is there a pneumothorax?
  no = There is no focal consolidation, pleural effusion, or pneumothorax.
  no = No focal consolidation, effusion or pneumothorax.
  no = A pneumothorax is not identified.
  yes = There is a small right apical pneumothorax.
  yes = A small right apical pneumothorax is present, without mediastinal shift.
  yes = Yes. There is no tension.
  no = The previously seen pneumothorax has resolved.
  no = There is no longer a pneumothorax.
  no = Pneumothorax: Absent
  no = Answer: No pneumothorax.
Is there evidence of pneumonia?
  yes = There is a right lower lobe consolidation, consistent with pneumonia.
  yes = Findings are suggestive of pneumonia.
  no = No findings to suggest pneumonia.
  no = The lungs are clear without evidence of pneumonia.
  no = The lungs are clear. There is no evidence of pneumonia.
  yes = There is an opacity that likely represents pneumonia.
  yes = This is concerning for pneumonia.
  yes = Right lower lobe opacity, likely pneumonia.
  no = It is unlikely that there is pneumonia.
  no = Pneumonia is unlikely.
  no = The X-ray does not show signs of pneumonia.
  no = The image fails to show pneumonia.
  no = The patient is without pneumonia.
Is there cardiomegaly?
  yes = There is cardiomegaly.
  yes = Mild cardiomegaly.
  yes = Moderate cardiomegaly is again seen.
  no = The heart size is normal, so there is no cardiomegaly.
  yes = The cardiac silhouette is enlarged, indicating cardiomegaly.
  no = The cardiothoracic ratio is less than 50%, so no cardiomegaly.
Is the heart enlarged?
  no = The heart is normal in size.
  no = The heart size is within normal limits.
  no = The heart appears normal in size.
  no = Heart size is normal.
  yes = The heart appears mildly enlarged.
  no = The heart does not appear enlarged.
  no = The heart is not significantly enlarged.
  no = Normal
  yes = Enlarged.
Is the cardiac silhouette enlarged?
  yes = The cardiac silhouette is mildly to moderately enlarged.
  no = The cardiomediastinal silhouette is unremarkable.
Is the heart size normal?
  yes = Yes, the heart size is within normal limits.
  no = The heart is enlarged.
  yes = Heart size is normal.
  no = No, the heart is enlarged.
  no = The heart size is not normal.
  yes = The heart is within normal limits.
  no = Cardiomegaly is present.
Is this chest X-ray normal?
  yes = No acute cardiopulmonary abnormality.
  yes = There is no evidence of acute cardiopulmonary disease.
  yes = No abnormalities are seen.
  yes = The chest X-ray appears normal.
  no = This is an abnormal chest X-ray.
  no = Abnormal
  yes = Normal
  no = No, it is not normal.
  yes = Yes, there are no abnormalities.
Are the lungs clear?
  yes = The lungs are clear.
  yes = Both lungs are clear bilaterally.
  no = The lungs are not clear.
  yes = There is no focal consolidation; the lungs are clear.
  yes = No focal consolidation in the lungs.
Are there abnormalities in the lungs?
  no = The lungs are clear.
Is there any abnormality?
  no = The chest X-ray is normal.
  yes = Yes, cardiomegaly.
  no = No acute abnormality.
Is the trachea midline?
  yes = The trachea is midline.
  no = The trachea is deviated to the right.
Is the trachea deviated?
  no = The trachea is midline.
Is the trachea midline?
  yes = Yes
Is there a rib fracture?
  no = No acute rib fractures identified.
  yes = There is a fracture of the left fifth rib.
  no = No displaced rib fracture is seen.
Is there an endotracheal tube?
  yes = An endotracheal tube terminates 4 cm above the carina.
  yes = The endotracheal tube is in place.
Is there a pacemaker?
  yes = A left-sided dual-lead pacemaker is in place.
  no = No pacemaker.
  no = I do not see any pacemaker.
Is there free air under the diaphragm?
  no = No free air is seen under the diaphragm.
  no = No subdiaphragmatic free air.
Has the effusion increased?
  no = The effusion is unchanged.
  yes = The effusion has increased.
  no = No significant change.
Has the effusion resolved?
  yes = The effusion has resolved.
  no = The effusion persists.
Does the patient have pulmonary edema?
  yes = There is mild pulmonary edema.
  no = There is no overt pulmonary oedema.
  no = The patient does not have pulmonary edema.
  yes = The patient has mild pulmonary edema.
Is the pneumothorax on the left?
  yes = The pneumothorax is on the left side.
  no = The pneumothorax is on the right.
  yes = Yes, left.
  no = It is on the right.
Is this a PA view?
  yes = This is a PA view.
  no = No, this is an AP view.
  no = This is an AP view.
Is this an AP view?
  yes = AP
Was this taken in PA position?
  yes = Yes
Which lung is affected?
  left lung = Left
  left = The left lung
  left side = Left lung.
Which side is the effusion on?
  right side = Right
  right = On the right side.
  right side = The effusion is on the right-hand side
  left = left-sided
  bilateral = Both sides
  both = Bilateral
  bilateral = Bilaterally
How many nodules are there?
  2 = Two nodules.
  two = 2
  3 = There are three.
  1 = One
  0 = None
  0 = No nodules
What is the abnormality?
  pleural effusion = Bilateral pleural effusions
  right pleural effusion = There is a right-sided pleural effusion.
  rib fracture = Rib fractures
  cardiomegaly = Cardiomegaly
  pulmonary edema = Pulmonary oedema
  pulmonary nodule = Pulmonary nodules in the left upper lobe
  consolidation = Consolidation and no effusion
  none = No abnormality
  none = There are no abnormalities.
Where is the opacity?
  right lower lobe = In the right lower lobe
What modality is this?
  x-ray = X-ray
  xray = Chest X-ray
  X-ray = This is a plain radiograph (chest X-ray).
What view is this?
  PA = PA
  PA = This is a posteroanterior (PA) view.
  PA = posterior-anterior
  frontal = Frontal view
What plane is the image in?
  axial = Axial plane
  axial plane = Axial
What organ is shown?
  lung = The lungs
  heart = lungs and heart
Is it left or right?
  Left = left
Is the heart normal or enlarged?
  enlarged = The heart is enlarged.
What is the severity of the effusion?
  mild = Mild
What is the size of the mass?
  3cm = 3 cm
Is there any mediastinal widening?
  no = The mediastinum is not widened.
  yes = The mediastinum is widened.
  no = Mediastinal contours are normal.
Is the mediastinum widened?
  no = The mediastinum is of normal width.
Are there nodules?
  yes = Yes; multiple nodules.
  yes = Multiple nodules.
  no = No discrete nodules or masses.
  no = There aren't any nodules
Is there a fracture or dislocation?
  no = There is no fracture or dislocation.
Does the image show an abnormality?
  no = Not that I can see.
  no = I don't see any abnormality.
Is there atelectasis?
  yes = Bibasilar atelectasis.
  yes = Low lung volumes with bibasilar atelectasis.
  no = No evidence for atelectasis.
  no = Lungs are clear; atelectasis is absent
  yes = Definitely.
  no = Probably not.
  yes = Yes, possibly.
Is there a pneumothorax?
  no = There is no pneumothorax, but a pleural effusion or atelectasis.
Is there a pleural effusion?
  yes = There is no pneumothorax, but there is a pleural effusion or atelectasis.
  yes = No pneumothorax, and a small pleural effusion is seen.
  yes = No pneumothorax. Small left pleural effusion.
  no = Lungs are clear, no pneumothorax, effusion, or consolidation.
  no = No, or only a minimal, pleural effusion.
Is there a left pleural effusion?
  no = There is a right pleural effusion.
  yes = The right effusion has decreased. There is a left pleural effusion.
  yes = There are bilateral pleural effusions.
  yes = There is a pleural effusion, left greater than right.
Is there a right pleural effusion?
  no = Left pleural effusion. No right effusion.
Is the heart enlarged?
  yes = The lungs are clear and the heart is enlarged.
  yes = The lungs are clear. The heart is enlarged.
  no = The lungs are clear. The heart is normal.
Is the heart size normal?
  yes = The heart is not enlarged.
  yes = No cardiomegaly.
Is the chest X-ray abnormal?
  no = No acute abnormality.
  no = The X-ray is normal.
  yes = Yes, there is a pneumothorax.
Is the tube in the right place?
  yes = The tube is in the right place.
Is the tube displaced?
  no = The tube is in normal position.
Is there a nasogastric tube?
  yes = The nasogastric tube is in normal position.
Is there consolidation?
  no = The lungs are clear.
Is there atelectasis in the right lower lobe?
  no = Left lower lobe atelectasis.
Is this an AP view?
  no = PA
Has the pneumothorax increased?
  no = The pneumothorax has decreased.
  no = The pneumothorax is stable.
  no = There is no change in the pneumothorax.
Is there a pneumothorax?
  yes = Stable right pneumothorax.
  yes = No change in the right pneumothorax.
Has the pneumothorax resolved?
  no = The pneumothorax has not resolved.
Is there any fracture?
  no = There is no acute fracture, dislocation, or lytic lesion.
Which lung is affected?
  left lung = The right lung is normal; the left lung is affected.
Which lobe is affected?
  right lower lobe = Right lower
How many ribs are broken?
  3 = Three ribs
What is seen?
  nodules = A nodule
Are both lungs affected?
  yes = Yes, both lungs.
Is the mediastinum shifted to the left?
  no = The mediastinum is shifted to the right.
  no = The mediastinum is midline.
Are the costophrenic angles blunted?
  yes = The left costophrenic angle is blunted.
Are the costophrenic angles clear?
  no = There is blunting of the left costophrenic angle.
Are there signs of heart failure?
  no = No signs of heart failure are seen, such as edema, effusion, or cardiomegaly.
Is there a mass?
  yes = A mass is seen in the right upper lobe, without effusion or adenopathy.
  yes = The lungs show a mass.
Is the left lung affected?
  yes = There is an effusion in the left lung.
  no = The right lung is affected.
Is there fluid around the lung?
  yes = Fluid is present.
Is it present?
  yes = It is present.
Is a nodule visible?
  yes = One is visible.
  yes = Yes, one nodule.
Is the study abnormal?
  no = Normal.
Is there an opacity?
  no = There is no clear sign of it.
Are the lungs clear?
  yes = There is no clear evidence of consolidation.
Is there evidence of a pleural effusion in this image?
  yes = Looking at the chest X-ray, there is blunting of the right angle, which suggests a small pleural effusion.
  no = Both costophrenic angles are clear, therefore no pleural effusion is present.
  no = The costophrenic angles appear sharp and there is no obvious fluid collection.
  no = I don't see any definitive evidence of a pleural effusion.
Does this patient have a pneumothorax?
  no = The lungs are well expanded with no evidence of pneumothorax.
  yes = Yes, the patient has a large left tension pneumothorax with mediastinal shift to the right.
  yes = There is a large left tension pneumothorax with mediastinal shift to the right.
  yes = The visceral pleural line is seen, indicating a pneumothorax.
Is there any evidence of lung consolidation?
  yes = There is an area of consolidation in the right lower lobe.
  no = There are patchy opacities in both lungs, but no frank consolidation.
  no = The lungs appear clear with no signs of consolidation.
  no = No consolidation, but mild interstitial edema.
Are there any signs of cardiomegaly?
  yes = The heart appears to be enlarged.
  yes = The cardiac silhouette appears enlarged.
  no = The heart size appears to be within normal limits.
  no = The cardiac silhouette is normal.
  no = The cardiac silhouette is normal in size and contour, with no evidence of cardiomegaly.
  yes = Yes, the cardiothoracic ratio appears to be greater than 0.5.
  yes = The heart is borderline enlarged.
  no = The heart is not enlarged.
  no = The heart is top normal in size.
Is the aorta tortuous?
  yes = The aorta is tortuous and calcified.
  yes = The aorta is mildly tortuous.
Is the mediastinum widened?
  no = The mediastinum does not appear widened.
  yes = The mediastinum appears widened.
  no = The mediastinal contours are within normal limits.
Is the mediastinum of normal width?
  no = The mediastinum is widened.
Are the lung fields clear?
  no = There are bilateral infiltrates in the lung fields.
  yes = The lung fields are clear.
  yes = The lungs are clear.
  no = No, there is an opacity in the left lower lobe.
  yes = The lungs are hyperinflated but clear.
Is the right hemidiaphragm elevated?
  yes = The right hemidiaphragm is elevated.
  no = The left hemidiaphragm is elevated.
  no = Both hemidiaphragms are normal.
Is the patient intubated?
  yes = The patient is intubated.
  no = The patient is not intubated.
Is the ET tube above the carina?
  yes = The ET tube tip is 3 cm above the carina.
Is this a normal study?
  yes = Normal chest radiograph.
  yes = This study is unremarkable.
  yes = There is no acute cardiopulmonary process.
  no = No, there is cardiomegaly.
  no = There are several abnormalities.
Is this image normal?
  yes = The image shows no abnormality.
  no = The heart is enlarged.
Is there bowel obstruction?
  yes = Dilated loops of small bowel suggest bowel obstruction.
Is there a midline shift?
  yes = There is a midline shift to the left.
  no = No midline shift.
  no = There is no shift of midline structures.
Is there a mass effect?
  no = No mass effect is identified.
Is the liver enlarged?
  no = The liver is normal in size.
Are there clear signs of pneumonia?
  yes = There are clear signs of pneumonia.
  yes = There is pneumonia in the right lung.
  no = There are no clear signs of pneumonia.
Is there normal bone density?
  yes = Bone density is normal.
Is there a stable pleural effusion?
  yes = There is a stable pleural effusion.
Is there an enlarged heart?
  no = There is no enlarged heart.
  yes = Yes, enlarged.
Is there a left-sided pacemaker?
  yes = There is a pacemaker on the left side.
  no = There is a pacemaker on the right side.
Is the pleural effusion bilateral?
  yes = Bilateral.
  yes = The pleural effusions are bilateral.
Is this an axial image?
  yes = This is an axial image.
Is this an MRI?
  no = This is a chest X-ray, not an MRI.
Is contrast used?
  yes = Contrast is used.
Was contrast given?
  no = Contrast was not given.
Is it likely that the patient has COPD?
  no = COPD is unlikely.
What is the most likely diagnosis?
  pneumonia = The most likely diagnosis is pneumonia.
What does the arrow point to?
  aortic arch = The arrow points to the aortic arch.
What part of the lung is the pneumothorax located in?
  right apex = Right apex
Where are the kidneys?
  not shown = The kidneys are not shown
  not seen here = They are not present in the image
What type of image is this?
  Chest X-ray = It is a chest X-ray
What is the gender of the patient?
  male = The patient is male.
What is the location of the mass?
  right lung = right lung base
What are the findings?
  right lungs = The left and right lungs are clear.
Which side is the pneumothorax on?
  right = Right upper
Is the pneumothorax larger on the left or the right?
  left = It is larger on the left than on the right.
Is there pleural thickening?
  yes = There is thickening of the left pleura.
Is there any abnormality?
  yes = There is an abnormality in the left lung.
Which lung is affected?
  left = The left lung is affected, the right is normal.
Is there a left pneumothorax?
  yes = There is a small pneumothorax.
Is there a displaced rib fracture?
  yes = There is a rib fracture.
Are the lungs abnormal?
  no = The lungs are normal.
Is there a pneumothorax?
  yes = The pneumothorax has not resolved.
Is the cardiac silhouette larger than normal?
  yes = The cardiac silhouette is enlarged.
  yes = The heart is enlarged and the cardiac silhouette is larger than normal.
  no = The heart is normal in size.
Is the heart size normal?
  no = The heart is larger than normal.
Are the lung volumes lower than normal?
  no = The lung volumes are normal.
  yes = The lung volumes are lower than normal.
Is the heart size outside normal limits?
  no = The heart size is within normal limits.
What view is this?
  AP = This is an anteroposterior view.
What is the abnormality?
  hematoma = Haematoma
  tumor = Tumour
Is there cardiac enlargement?
  yes = The heart is enlarged.
Is there pleural thickening?
  yes = The pleura is thickened.
Is there tracheal deviation?
  no = The trachea is midline.
Is there dilatation of the aorta?
  yes = The aorta is dilated.
Is there dilation of the aorta?
  no = The aorta is normal.
Is there displacement of the tube?
  yes = The tube is displaced.
Is there a pleural effusion?
  yes = No pneumothorax, shows a pleural effusion or thickening.
"""

NOT_RIGHT = """\
Is there evidence of pneumonia?
  no = Cannot be determined from this image.
Which side is the effusion on?
  left = Right
  right = bilateral
How many nodules are there?
  2 = 12
What is the abnormality?
  pneumothorax = There is no pneumothorax.
  pneumonia = Pneumonia cannot be excluded
Where is the opacity?
  right lower lobe = left lower lobe
What view is this?
  PA = AP view
Is the heart normal or enlarged?
  enlarged = The heart is not enlarged.
What is the severity of the effusion?
  small = moderate to large
Are there nodules?
  yes = A possible nodule in the right upper lobe.
Is there a pleural effusion?
  yes = There is pleural thickening.
Is there a pneumothorax?
  yes = A pleural effusion is present.
  yes = There is a pleural effusion.
Is there pulmonary edema?
  yes = There is a pulmonary nodule.
Is the heart enlarged?
  no = The mediastinum is normal.
  yes = The aorta is enlarged.
  no = The heart is not normal.
Is the heart size normal?
  yes = It is not.
  yes = The lungs are clear.
Is there consolidation in the left lung?
  no = The right lung is clear.
What is the abnormality?
  effusion = No pneumothorax, effusion, or mass.
  mass = No pneumothorax, effusion, or mass.
Which lung is affected?
  left lung = right
Which lobe is affected?
  right lower lobe = Lower lobe
Is the lung or the heart affected?
  lung = the heart
How many ribs are broken?
  2 = three ribs
  2 = Two or three
Is the heart enlarged?
  yes = The heart is not normal.
Is there evidence of a pleural effusion in this image?
  no = A pleural effusion is not definitively seen, although a small one cannot be excluded.
Is there an enlarged heart?
  yes = There is an enlarged aorta.
What is the most likely diagnosis?
  pneumonia = Pneumonia or atelectasis
What does the arrow point to?
  aortic arch = aortic knob
What is the gender of the patient?
  male = female
Which side is the pneumothorax on?
  right = The pneumothorax is on the left; the right lung is clear.
  right = Left
Which lung is affected?
  right = The left lung is affected, the right is normal.
Is the heart size normal?
  yes = Heart failure is present.
Is it on the left or right?
  left apex = right apex
"""


def cases(table: str) -> list[tuple[str, str, str]]:
    found, question = [], ""
    for line in table.splitlines():
        if line.startswith(" "):
            truth, answer = line.strip().split(" = ")
            found.append((question, answer, truth))
        else:
            question = line
    return found


@pytest.mark.parametrize(("table", "right", "count"), [(RIGHT, True, 321), (NOT_RIGHT, False, 39)])
def test_answers_are_judged_as_a_reader_would(table: str, right: bool, count: int) -> None:
    every = cases(table)
    assert len(every) == count
    assert [case for case in every if is_correct(case[1], case[2], question=case[0]) is not right] == []
